// SPDX-License-Identifier: AGPL-3.0-only

package webhook

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// Without the word of the host's administrator a hook reaches no address of the inside, also not by a name.
func TestStaysOutside(t *testing.T) {
	for _, url := range []string{"http://localhost:1/", "https://localhost/", "https://127.0.0.1/", "https://10.1.2.3/", "https://[::1]/", "https://[fe80::1]/", "https://169.254.169.254/",
		"https://[::ffff:10.0.0.1]/", "https://100.64.0.1/", "https://0.0.0.0/", "https://[fd00::1]/", "https://[64:ff9b::7f00:1]/", "https://192.168.1.1:8443/"} {
		if err := Check(url, "hook.address", false); problem.Of(err).Rule != "hook.address" {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"", "erp.example", "http://erp.example/", "ftp://erp.example/", "https://me:pw@erp.example/", "https://erp.example/" + strings.Repeat("a", maxURL)} {
		if err := Check(url, "hook.address", true); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if err := Check("https://erp.example/allow", "hook.address", false); err != nil {
		t.Error(err)
	}
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	if resp, err := Client(false).Get(srv.URL); err == nil {
		resp.Body.Close()
		t.Error("a loopback address was dialled")
	}
	if resp, err := Client(true).Get(srv.URL); err != nil {
		t.Error(err)
	} else {
		resp.Body.Close()
	}
}

// A redirect could lead anywhere: it is an answer, not a way.
func TestFollowsNothing(t *testing.T) {
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer srv.Close()
	resp, err := Client(true).Post(srv.URL+"/here", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusTemporaryRedirect || len(asked) != 1 {
		t.Errorf("%d, asked %v", resp.StatusCode, asked)
	}
}

// The signature is the one of the specification's own example.
func TestSignature(t *testing.T) {
	secret, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"test": 2432232314}`)
	req, err := Secret(secret).Request(t.Context(), "https://erp.example/hook", "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), body)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330", "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "Content-Type": "application/json"} {
		if got := req.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if sent, _ := io.ReadAll(req.Body); string(sent) != string(body) {
		t.Errorf("body %q", sent)
	}
	if a, b := NewSecret(), NewSecret(); a.Text() == b.Text() || len(a) != 32 || !strings.HasPrefix(a.Text(), "whsec_") {
		t.Error("secrets are not made as they should be")
	}
}
