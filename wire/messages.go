// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Topic parts under a device's root; see the package comment.
const (
	Root       = "ot/1/me/" // what a device writes and subscribes to
	TopicInv   = "inv"
	TopicOffer = "ota/offer"
)

// Telemetry is one measurement message on tele/<stream>. A flat JSON object of numbers is accepted as well: its
// numeric members other than ts, boot and seq are the values.
type Telemetry struct {
	TS     int64              `json:"ts,omitempty"`   // ms since 1970 UTC; 0: the time of receipt
	Boot   uint64             `json:"boot,omitempty"` // counts the device's starts; with Seq it makes a repeat harmless
	Seq    uint64             `json:"seq,omitempty"`  // counts messages since boot, from 1; a hole is a lost message
	Values map[string]float64 `json:"values"`
}

// Event is something that happened on the device, on event/<type>.
type Event struct {
	TS     int64          `json:"ts,omitempty"`
	Detail string         `json:"detail,omitempty"`
	Data   map[string]any `json:"data,omitempty"`
}

// Inventory is what a device says of the software that runs on it now; sent at every start.
type Inventory struct {
	Version         string `json:"version"`
	SecurityVersion int64  `json:"security_version"`
	Image           string `json:"image"`            // digest of the booted slot
	Slot            string `json:"slot"`             // "a" or "b"
	Floor           int64  `json:"floor"`            // lowest security_version the device accepts
	Boot            uint64 `json:"boot"`             // this start's number
	Update          string `json:"update,omitempty"` // the update that this start commits, if any
	Agent           string `json:"agent,omitempty"`  // version of the agent
	Bundle          int64  `json:"bundle,omitempty"` // version of the trust bundle it goes by
}

// CommandAck says whether the device takes a command; on cmd/<id>/ack.
type CommandAck struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

// CommandResult ends a command; on cmd/<id>/res.
type CommandResult struct {
	OK     bool            `json:"ok"`
	Detail string          `json:"detail,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"`
}

// Offer invites a device to an update; on ota/offer. It is only a hint: what the device installs is decided by the
// signed metadata it fetches.
type Offer struct {
	Update   string `json:"update"`    // id of this device's update
	Release  string `json:"release"`   // id under /d/1/ota/{release}/targets.json
	Target   string `json:"target"`    // target path inside the signed metadata
	NotAfter int64  `json:"not_after"` // ms; a later start of the update is refused
}

// Update states that a device reports on ota/<update>/status. Committed, Refused, RolledBack and Failed are final.
const (
	UpdateDownloading = "downloading"
	UpdateVerified    = "verified"
	UpdateStaged      = "staged"
	UpdateRebooting   = "rebooting"
	UpdateCommitted   = "committed"
	UpdateRefused     = "refused" // Rule names why: signature, expired, product, hardware, floor, digest
	UpdateRolledBack  = "rolled_back"
	UpdateFailed      = "failed"
)

// UpdateStatus is a step of one update.
type UpdateStatus struct {
	State     string    `json:"state"`
	Rule      string    `json:"rule,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Inventory Inventory `json:"inventory"`
}

// LineRequest is what a line station sends for one unit (POST /d/1/line/devices): as it is, or as the payload of a
// Signed under the key of the station's certificate. A signed one names Station and Time. There is no member for a
// private key: a unit makes its own.
type LineRequest struct {
	Serial   string `json:"serial"`             // as printed on the unit: [A-Za-z0-9._-]{1,64}
	CSR      string `json:"csr"`                // PEM; P-256, made on the device
	Firmware string `json:"firmware,omitempty"` // digest of what the line flashed
	SBOM     string `json:"sbom,omitempty"`     // id or digest of the bill of materials of that firmware
	MAC      string `json:"mac,omitempty"`      // of the first network interface
	SKU      string `json:"sku,omitempty"`      // what is sold
	Order    string `json:"order,omitempty"`    // production order
	Line     string `json:"line,omitempty"`     // production line
	Part     string `json:"part,omitempty"`     // part number
	Station  string `json:"station,omitempty"`  // id of the station
	Time     int64  `json:"time,omitempty"`     // ms, the station's clock
}

// LineResponse is what the station hands to the unit and prints on its box.
type LineResponse struct {
	Device      string          `json:"device"`
	Certificate string          `json:"certificate"`          // PEM, the IDevID
	Chain       string          `json:"chain"`                // PEM, issuing CA then root
	Claim       string          `json:"claim"`                // claim code for the box; shown once, never stored in the clear
	TrustRoot   json.RawMessage `json:"trust_root,omitempty"` // the manufacturer's update root, if one is set
	Bundle      *SignedBundle   `json:"bundle,omitempty"`     // the newest trust bundle, for the device to pin
}

// Time is what the platform's clock says, on GET /d/1/time. Its proof is the TLS connection that it comes over: the
// server signed a handshake that the device had begun.
type Time struct {
	Now int64 `json:"now"` // ms since 1970 UTC
}

// Message is one message on the HTTPS door: topic without the device root. Boot, Seq and Type are what MQTT 5 says in
// properties.
type Message struct {
	Topic   string          `json:"topic"`
	Payload json.RawMessage `json:"payload,omitempty"`
	Data    []byte          `json:"data,omitempty"` // the body if it is no JSON, in base64; in place of Payload
	Type    string          `json:"type,omitempty"` // media type of the body; "": JSON of this package
	Boot    uint64          `json:"boot,omitempty"`
	Seq     uint64          `json:"seq,omitempty"`
}

// Receipt answers POST /d/1/messages: that many messages are on disk.
type Receipt struct {
	Durable int `json:"durable"`
}

// WipeReceipt is the last act of a device: what it erased, said under its IDevID key.
type WipeReceipt struct {
	Device  string   `json:"device"`
	Serial  string   `json:"serial"`
	Command string   `json:"command"` // the wipe command it answers
	Nonce   string   `json:"nonce"`   // from the command's arguments
	Method  string   `json:"method"`  // how: "unlink+overwrite", "crypto-erase"
	Areas   []string `json:"areas"`   // what: "ldevid-key", "telemetry-buffer", "slot-a", "slot-b", "config"
	Image   string   `json:"image"`   // digest of the software that performed it
	At      int64    `json:"at"`
}

// WipeArgs are the arguments of the command named "wipe".
type WipeArgs struct {
	Nonce string `json:"nonce"`
}

// Signed is a payload under one ECDSA P-256 signature (ASN.1, over SHA-256 of Payload).
type Signed struct {
	Payload   []byte `json:"payload"`
	Signature []byte `json:"signature"`
}

// Sign signs v's JSON with key.
func Sign(rand io.Reader, key crypto.Signer, v any) (Signed, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return Signed{}, err
	}
	h := sha256.Sum256(b)
	sig, err := key.Sign(rand, h[:], crypto.SHA256)
	if err != nil {
		return Signed{}, err
	}
	return Signed{Payload: b, Signature: sig}, nil
}

// ErrSignature is returned for a payload that the given key did not sign.
var ErrSignature = errors.New("the signature does not match the key")

// Open verifies s under pub and decodes its payload into v.
func (s Signed) Open(pub crypto.PublicKey, v any) error {
	k, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("%w: the key is %T, not ECDSA", ErrSignature, pub)
	}
	h := sha256.Sum256(s.Payload)
	if !ecdsa.VerifyASN1(k, h[:], s.Signature) {
		return ErrSignature
	}
	return json.Unmarshal(s.Payload, v)
}

// Digest returns "sha256:<hex>" of b.
func Digest(b []byte) string {
	h := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(h[:])
}
