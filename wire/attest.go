// SPDX-License-Identifier: Apache-2.0

package wire

// How a device proves that a key is in a TPM: AttestRequest -> AttestChallenge -> AttestProof (TCG "TPM 2.0 Keys for
// Device Identity and Attestation" 5). Byte fields are base64 in JSON. TPM structures are as the TPM marshals them
// (TPM 2.0 Library part 2), certificates are DER.

// AttestRequest names the TPM and the key that it makes its statements with.
type AttestRequest struct {
	Certificate []byte   `json:"ek_certificate,omitempty"` // of the endorsement key; absent if the TPM carries none
	Chain       [][]byte `json:"ek_chain,omitempty"`       // authorities between it and the maker's root, if known
	EK          []byte   `json:"ek"`                       // TPMT_PUBLIC of the endorsement key
	AK          []byte   `json:"ak"`                       // TPMT_PUBLIC of the attestation key
}

// AttestChallenge is a secret that only the TPM with both keys can open, and a number that makes the proof fresh.
type AttestChallenge struct {
	ID         string `json:"id"`
	Credential []byte `json:"credential"` // contents of a TPM2B_ID_OBJECT
	Secret     []byte `json:"secret"`     // contents of a TPM2B_ENCRYPTED_SECRET
	Nonce      []byte `json:"nonce"`      // becomes the qualifying data of the statement
}

// AttestProof answers the challenge and shows the TPM's statement that it holds the key.
type AttestProof struct {
	ID        string `json:"id"`        // of the challenge
	Opened    []byte `json:"opened"`    // the secret
	Key       []byte `json:"key"`       // TPMT_PUBLIC of the key that a certificate is wanted for
	Info      []byte `json:"info"`      // TPMS_ATTEST of TPM2_Certify
	Signature []byte `json:"signature"` // TPMT_SIGNATURE over Info by the attestation key
}

// Limits of the exchange; what is longer is refused before it is parsed.
const (
	MaxAttestCertificate = 8 << 10 // bytes of each certificate
	MaxAttestChain       = 6       // certificates
	MaxAttestStructure   = 2 << 10 // bytes of each TPM structure
)
