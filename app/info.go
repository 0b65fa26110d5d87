// SPDX-License-Identifier: AGPL-3.0-only

package app

// LogKeyFile holds the verifier key of the audit log, below the data folder.
const LogKeyFile = "log.pub"

// Info is where a running platform is reached; "openthings up --json" prints it once it serves.
type Info struct {
	URL         string `json:"url"`             // people and programs
	Devices     string `json:"devices"`         // devices over HTTPS, as a URL
	MQTT        string `json:"mqtt"`            // devices over MQTT, host:port
	CoAP        string `json:"coap,omitempty"`  // devices over CoAP, as a URL
	Health      string `json:"health"`          // loopback, without TLS: /livez and /readyz
	CA          string `json:"ca"`              // PEM file with the CA that signed the server certificates
	Fingerprint string `json:"ca_fingerprint"`  // hex SHA-256 of that certificate
	LogKey      string `json:"log_key"`         // verifier key of the audit log, for "openthings verify --log-key"
	Setup       string `json:"setup,omitempty"` // one-time link for the first person; only until somebody has joined
}

// Token is what the host socket answers to POST /token; the secret is shown this once.
type Token struct {
	ID      string `json:"id"`
	Token   string `json:"token"`
	Tenant  string `json:"tenant"`
	Expires string `json:"expires"`
}
