// SPDX-License-Identifier: AGPL-3.0-only

package testpeers_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"

	"github.com/openthings-platform/openthings/testpeers"
)

func TestVaultAnswers(t *testing.T) {
	v, err := testpeers.StartVault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(v.CA)) {
		t.Fatalf("its CA is %q", v.CA)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(v.Address + "/v1/sys/health")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("health: %s", resp.Status)
	}
	if err := v.Stop(); err != nil {
		t.Error(err)
	}
}
