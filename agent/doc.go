// SPDX-License-Identifier: Apache-2.0

// Package agent is the device side: identity, messages, commands, updates and the wipe, on a directory of plain files.
//
// One call of Run is one power cycle. Everything that must outlive it stands in the state directory (mode 0700):
//
//	idevid.key idevid.pem chain.pem    the certificate of birth; where the key is, agent/keys says
//	ldevid.pem next.pem                the certificate in service, and the one that is about to replace it
//	ldevid-a.key ldevid-b.key          their keys in turn; each certificate's file names its own
//	pin.json bundle.json               the trust bundle from the line, and the newest that follows from it
//	time.json                          the floor of the time: the newest moment that is proven to have been
//	unit.json config.json commands.json
//	notices.json support.json          what the maker tells those who use the device, what they have seen of it, and until when
//	                                   the maker supports the device
//	twin.json                          what the platform wants of the device, and the version that the device goes by
//	root.json                          the manufacturer's update root that is trusted now
//	boot.0 boot.1                      the boot record, two copies with sequence and checksum
//	slot-a slot-b slot-a.json …        two images and what the signed metadata says of them
//	buffer/t-*.log e-*.log s-*.log     measurements, events and security events that nobody has acknowledged yet, see Buffer
//	buffer/lost.json baseline.json     what had to be given up and is yet to be told; how the device was set up last
//
// Invariants:
//   - The intent is on disk before each effect, and every effect can be repeated.
//   - What the outcome of an update was is judged by looking (which slot runs, what its bytes hash to), never by memory.
//   - The floor rises at commit, after the new image proved healthy; until then the old slot stays bootable.
//   - Nothing that the server says makes the device install what update/trust refuses.
//   - A renewal has two phases: key, then certificate are durable beside those in service, and take their place once the
//     platform has taken the new certificate. One that it refuses is given up, and the old one works on.
//   - Whom the device trusts changes by a bundle alone that an anchor of the bundle before has signed.
//   - No end of a certificate counts, and no renewal begins, on the word of the device's own clock.
//   - It never comes back sooner than the platform asked, and hardly ever when it was refused.
//   - What is desired of the device is on disk before the platform hears that it arrived; the version that the device says
//     it goes by is one that it has applied.
//   - A measurement or event leaves the buffer when the platform's PUBACK has arrived, or when the buffer is full and it is the
//     oldest; then it is counted, and the platform is told (event/lost).
//   - A notice is on disk before the platform hears that it is stored. That somebody has seen it is on disk before the firmware
//     hears that it is kept, together with the report of it, which goes when the platform's PUBACK has arrived.
//   - Security events are a chain, each on disk before it counts: whatever is deleted or altered shows at the next one.
//
// A maker's firmware links the package or talks to the program. Linked, it holds an Agent, and hands in what it measures and
// what happens:
//
//	a := agent.New(agent.Config{…})
//	go a.Supervise(ctx)
//	err := a.Measure("env", map[string]float64{"temp": 21.5})
//	err = a.Security(wire.SecurityLogin, "root on ttyS0", map[string]any{"user": "root"})
//	list, err := a.Notices("de", "en") // to show, and then
//	err = a.NoticeShown(list[0].ID)
//	err = a.NoticeAcknowledged(list[0].ID)
//
// Beside it, other programs of the device write lines of JSON to the unix socket of openthings-agent run -socket PATH, see
// Request. What this costs in flash, and what a power cut costs, docs/decisions/0030 says with its numbers.
package agent
