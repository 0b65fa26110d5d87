// SPDX-License-Identifier: Apache-2.0

package wire

// TopicErr is where a device hears why something that it sent was refused (QoS 0). MQTT 5 says it in its own packets; for
// MQTT 3.1.1, whose only word is the end of the connection, this is the way.
const TopicErr = "err"

// Refusal says on err why a message or a subscription was refused.
type Refusal struct {
	Topic  string `json:"topic"`  // as the device wrote it
	Code   byte   `json:"code"`   // the reason code of MQTT 5.0, section 2.4
	Reason string `json:"reason"` // in words
}
