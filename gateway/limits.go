// SPDX-License-Identifier: AGPL-3.0-only

package gateway

import (
	"cmp"
	"runtime"
	"time"
)

// Limits bound what one client, and all of them together, can make the gateway hold. A zero field takes its default.
type Limits struct {
	Packet     int           // bytes of one MQTT packet after CONNECT; 256 KiB
	Connect    int           // bytes of a CONNECT packet; 4 KiB
	Topic      int           // bytes of a topic or filter; 256
	Filters    int           // subscriptions of one session; 32
	Receive    int           // QoS 1 publishes of one session not yet acknowledged (Receive Maximum); 64
	Downlinks  int           // QoS 1 publishes to one session not yet acknowledged by it; 16
	Out        int           // bytes queued towards one client beyond which it counts as dead; 1 MiB
	Batch      int           // records of one group commit; 4096
	BatchBytes int           // bytes of one group commit; 8 MiB
	QoS0       int           // records without receipt in one group commit, the rest is dropped and counted; 2048
	Aliases    int           // topic aliases of one connection, each way; 16
	Session    time.Duration // longest time that a session outlives its connection; 7 days
	Messages   int           // messages of one POST /d/1/messages; 1000
	Body       int64         // bytes of an HTTPS request body; 1 MiB
	PerPeer    int           // connections of one device or station; 16
	Exchanges  int           // requests of one CoAP association that are remembered, so that none is carried out twice; 4096
	Silence    time.Duration // longest silence of a CoAP association: a device that sleeps need not shake hands anew; 25 h

	// A door admits no faster than this, so that established sessions keep their share of the machine.
	Handshakes  int   // handshakes that compute at the same time; all processors but one, at least 1
	Pending     int   // connections of one door without a certificate, or before it was judged; 1024
	PerSource   int   // those among them of one IPv4 address or IPv6 network of 64 bits; 256
	Connections int   // connections of all doors; 32768
	Memory      int64 // bytes of large packets, bodies and unread output of all connections, at least 8 packets; 256 MiB

	Opening   time.Duration // that a peer may take for its part in handshake and CONNECT, or for an HTTPS request's header; 10 s
	Partial   time.Duration // for the rest of a packet whose beginning arrived; 30 s
	Write     time.Duration // for one write to a socket; 20 s
	Unacked   time.Duration // that what was sent over TCP may stay without an acknowledgement; 30 s
	KeepAlive time.Duration // longest silence granted between two packets (Server Keep Alive); 20 min

	Device Quota // of what one device sends, over all doors; 5,000 messages and 8 MiB a second, 20 s at once
	Tenant Quota // of what all devices of a tenant send together; 50,000 messages and 64 MiB a second, 20 s at once
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Packet: cmp.Or(l.Packet, 256<<10), Connect: cmp.Or(l.Connect, 4<<10), Topic: cmp.Or(l.Topic, 256),
		Filters: cmp.Or(l.Filters, 32), Receive: cmp.Or(l.Receive, 64), Downlinks: cmp.Or(l.Downlinks, 16),
		Out: cmp.Or(l.Out, 1<<20), Batch: cmp.Or(l.Batch, 4096), BatchBytes: cmp.Or(l.BatchBytes, 8<<20),
		QoS0: cmp.Or(l.QoS0, 2048), Aliases: cmp.Or(l.Aliases, 16), Session: cmp.Or(l.Session, 7*24*time.Hour), Messages: cmp.Or(l.Messages, 1000), Body: cmp.Or(l.Body, 1<<20),
		PerPeer: cmp.Or(l.PerPeer, 16), Exchanges: cmp.Or(l.Exchanges, 4096), Silence: cmp.Or(l.Silence, 25*time.Hour), Handshakes: cmp.Or(l.Handshakes, max(1, runtime.GOMAXPROCS(0)-1)),
		Pending: cmp.Or(l.Pending, 1024), PerSource: cmp.Or(l.PerSource, 256), Connections: cmp.Or(l.Connections, 32768),
		Memory:  max(cmp.Or(l.Memory, 256<<20), 8*int64(cmp.Or(l.Packet, 256<<10))),
		Opening: cmp.Or(l.Opening, 10*time.Second), Partial: cmp.Or(l.Partial, 30*time.Second),
		Write: cmp.Or(l.Write, 20*time.Second), Unacked: cmp.Or(l.Unacked, 30*time.Second), KeepAlive: cmp.Or(l.KeepAlive, 20*time.Minute),
		Device: l.Device.withDefaults(Quota{Messages: 5000, Bytes: 8 << 20, Burst: 20 * time.Second}),
		Tenant: l.Tenant.withDefaults(Quota{Messages: 50_000, Bytes: 64 << 20, Burst: 20 * time.Second}),
	}
}
