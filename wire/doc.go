// SPDX-License-Identifier: Apache-2.0

// Package wire holds every message that an agent and the platform exchange, and the leaf format of the audit log.
//
// A firmware image is the same for every device, so a device names itself "me": it publishes and subscribes under
// ot/1/me/… and the gateway expands that to ot/1/<tenant>/<device>/… from the certificate it presented.
//
//	tele/<stream>           up    QoS 0/1  Telemetry
//	event/<type>            up    QoS 1    Event: the agent tells boot, update-refused and lost (what it had to give up)
//	event/gone              up    QoS 1    Event: the agent's will, said by the platform when its session ended without a goodbye
//	event/security.<kind>   up    QoS 1    SecurityEvent: login, config, update, tamper, ..., one chain per device
//	state/desired           down  QoS 1    TwinDelta: what the device shall be like
//	state/reported          up    QoS 1    TwinReport: what it is like
//	inv                     up    QoS 1    Inventory: what runs, from which slot, under which floor
//	cmd/<id>/<name>         down  QoS 1    Command arguments (a JSON object)
//	cmd/<id>/ack            up    QoS 1    CommandAck: accepted or refused
//	cmd/<id>/res            up    QoS 1    CommandResult
//	notice                  up    QoS 1    NoticeReport: a notice was shown or acknowledged
//	ota/offer               down  QoS 1    Offer
//	ota/<update>/status     up    QoS 1    UpdateStatus
//	err                     down  QoS 0    Refusal: why something was refused; MQTT 5 says it in its own packets
//
// A device may publish on the topics marked "up" only. Any other, also below its own root, is refused before anything is
// kept: PUBACK 0x87 (not authorized) with the reason in words for QoS 1 of MQTT 5, the end of the connection otherwise,
// 403 over HTTPS.
//
// Measurements are Telemetry, or SenML packs in JSON or CBOR (RFC 8428): the media type tells, application/senml+json or
// application/senml+cbor, and without one an array of JSON is a pack. The media type is the Content Type of MQTT 5 and the
// member type of Message.
//
// A message on tele/… that counts itself is kept once, however often it is sent, and a hole in the count is told as a gap.
// Boot counts the device's starts, seq its messages on tele/… since the start, from 1. They stand in the body (members
// boot and seq of Telemetry; labels boot and seq of any record of a pack), or beside it: the user properties boot and seq
// of MQTT 5, the members boot and seq of Message. Where both say it, the body counts.
//
// Security events are a stream of their own and a chain: each carries its number and the SHA-256 of the body of the one
// before, byte for byte as it was sent. They are sent one after the other, and again until they are acknowledged; one that
// arrives twice is kept once. What is missing, altered or there in two versions shows at the next link. A checkpoint is
// itself a link, and holds the state of the chain before it under the key of the device's certificate of birth.
//
// Over HTTPS (port 8444, mutual TLS; which certificate opens a route is part of the route):
//
//	GET  /.well-known/est/cacerts                 none              RFC 7030 4.1
//	GET  /.well-known/est/csrattrs                none              RFC 7030 4.5, RFC 9908
//	POST /.well-known/est/simpleenroll            IDevID            RFC 7030 4.2.1
//	POST /.well-known/est/simplereenroll          LDevID, lapsed    RFC 7030 4.2.2
//	POST /.well-known/est/fullcmc                 none              not served: 404 in words
//	POST /.well-known/est/serverkeygen            none              not served: 404 in words
//	POST /.well-known/est/token/simpleenroll      none, or a token's claim certificate: RFC 7030 3.2.3 with an enrolment token
//	GET  /.well-known/est/{label}/cacerts         the same by the enrolment policy of that label
//	GET  /.well-known/est/{label}/csrattrs
//	POST /.well-known/est/{label}/simpleenroll
//	POST /.well-known/est/{label}/simplereenroll
//	POST /.well-known/est/{label}/fullcmc
//	POST /.well-known/est/{label}/serverkeygen
//	POST /d/1/line/devices                   station   LineRequest -> LineResponse
//	POST /d/1/line/renew                     station   StationRenewal -> its next certificate
//	GET  /d/1/line/journal                   station   JournalState: what an offline station has brought
//	POST /d/1/line/journal                   station   Journal -> JournalState
//	POST /d/1/baseline                       either    BaselineReport -> BaselineAnswer
//	POST /d/1/attest/challenge               either, lapsed    AttestRequest -> AttestChallenge
//	POST /d/1/attest/answer                  either, lapsed    AttestProof -> what it amounts to
//	POST /d/1/messages                       LDevID    []Message -> Receipt once durable
//	GET  /d/1/trust                          none      SignedBundle, the newest: what to trust of the platform
//	GET  /d/1/trust/{version}                none      SignedBundle; 404 beyond the newest
//	GET  /d/1/time                           none      Time: for devices whose own clock cannot be right
//	GET  /d/1/support                        LDevID    Support: until when the maker supports this device; 404: nothing is published
//	GET  /d/1/trust/root.json                LDevID    the tenant's update trust root; ?version=N walks the chain
//	GET  /d/1/ota/{release}/targets.json     LDevID    signed release metadata
//	GET  /d/1/blob/{sha256}                  LDevID    an artifact, with Range
//
// Invariants: bodies are JSON, unknown members are ignored, times are milliseconds since 1970 UTC, digests are
// "sha256:" and 64 lower-case hex digits. Golden bytes of each message lie in testdata; changing one is a breaking change.
package wire
