// SPDX-License-Identifier: Apache-2.0

package coap

// Numbers of content formats (IANA, CoAP Content-Formats).
const (
	TextPlain  uint32 = 0
	LinkFormat uint32 = 40
	Bytes      uint32 = 42
	JSON       uint32 = 50
	CBOR       uint32 = 60
	SenMLJSON  uint32 = 110
	SenMLCBOR  uint32 = 112
)

var mediaTypes = map[uint32]string{
	TextPlain: "text/plain", LinkFormat: "application/link-format", Bytes: "application/octet-stream", JSON: "application/json",
	CBOR: "application/cbor", SenMLJSON: "application/senml+json", SenMLCBOR: "application/senml+cbor",
}

// MediaType is the media type of a content format; false: this package does not know it.
func MediaType(format uint32) (string, bool) {
	t, ok := mediaTypes[format]
	return t, ok
}
