// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"crypto/x509"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/testpeers"
)

func openPostOffice(t *testing.T, edit func(*testpeers.PostOffice)) *testpeers.PostOffice {
	t.Helper()
	p, err := testpeers.OpenPostOffice(edit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func refusing(command string) func(*testpeers.PostOffice) {
	return func(p *testpeers.PostOffice) {
		p.Refuse = func(verb, _ string) string {
			if verb == command {
				return "550 5.7.1 not here"
			}
			return ""
		}
	}
}

// TestMail: a notice arrives as a well-formed mail, over TLS, from who was signed in.
func TestMail(t *testing.T) {
	for _, implicit := range []bool{false, true} {
		each(t, func(t *testing.T, h *house) {
			p := openPostOffice(t, func(p *testpeers.PostOffice) { p.Implicit = implicit })
			scheme := map[bool]string{true: "smtps", false: "smtp"}[implicit]
			m, err := NewMailer(scheme+"://ot@"+p.Addr, "planted-password", "OpenThings <ot@maker.example>", p.Roots)
			if err != nil {
				t.Fatal(err)
			}
			h.cfg.Mailer = m
			if _, secret, err := h.Add(t.Context(), Endpoint{Tenant: ten, Name: "PSIRT", Kind: Mail, Address: "psirt@maker.example", Topics: []string{"alarm.*"}, Actor: "per_1"}); err != nil || secret != "" {
				t.Fatal(secret, err)
			}
			n := raised("alm_1")
			n.Title, n.Text = "Zu heiß\r\nBcc: all@maker.example", "81 °C\n.\n-- \nmore"
			h.told(n)
			h.pass()
			if failed := h.deliveries(Open); len(failed) > 0 {
				t.Fatalf("%+v", failed)
			}
			l := <-p.Letters
			subject, err := new(mime.WordDecoder).DecodeHeader(l.Message.Header.Get("Subject"))
			if err != nil || subject != "Zu heiß  Bcc: all@maker.example" || l.Message.Header.Get("Bcc") != "" {
				t.Errorf("subject %q, %v", subject, err)
			}
			if l.TLS == "" || l.Auth != "|ot|planted-password" || !strings.Contains(l.From, "<ot@maker.example>") || !strings.Contains(l.To, "<psirt@maker.example>") {
				t.Errorf("%+v", l)
			}
			if want := "81 °C\n.\n-- \nmore\n\nhttps://ot.example:8443/alarms/alm_1\n"; strings.ReplaceAll(l.Body, "\r\n", "\n") != want {
				t.Errorf("body %q", l.Body)
			}
			if id := l.Message.Header.Get("Message-ID"); !strings.HasPrefix(id, "<ndl_") || !strings.HasSuffix(id, "@maker.example>") || l.Message.Header.Get("Auto-Submitted") != "auto-generated" {
				t.Errorf("%v", l.Message.Header)
			}
		})
	}
}

// TestMailRefused: a refusal of the server is no delivery, and its words are kept; a server whose certificate
// nobody vouches for gets nothing, the password least of all.
func TestMailRefused(t *testing.T) {
	for name, row := range map[string]struct {
		edit  func(*testpeers.PostOffice)
		roots bool
		want  string
	}{
		"a refused recipient":  {refusing("RCPT"), true, "recipient: 550"},
		"a refused letter":     {refusing("DATA"), true, "data: 550"},
		"an unknown authority": {func(*testpeers.PostOffice) {}, false, "STARTTLS: "},
	} {
		p := openPostOffice(t, row.edit)
		roots := p.Roots
		if !row.roots {
			roots = x509.NewCertPool()
		}
		m, err := NewMailer("smtp://ot@"+p.Addr, "planted-password", "ot@maker.example", roots)
		if err != nil {
			t.Fatal(err)
		}
		err = m.send(t.Context(), "psirt@maker.example", Delivery{ID: "ndl_1"})
		if err == nil || !strings.HasPrefix(err.Error(), row.want) || strings.Contains(err.Error(), "planted") || len(p.Letters) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A server elsewhere that offers no TLS gets nothing.
	p := openPostOffice(t, func(p *testpeers.PostOffice) { p.NoTLS = true })
	m, err := NewMailer("smtp://"+p.Addr, "", "ot@maker.example", p.Roots)
	if err != nil {
		t.Fatal(err)
	}
	m.clear = false
	if err := m.send(t.Context(), "psirt@maker.example", Delivery{}); err == nil || !strings.Contains(err.Error(), "no TLS") {
		t.Error(err)
	}
}

func TestNewMailer(t *testing.T) {
	for _, row := range []struct{ address, password, from string }{
		{"https://mail.example", "", "a@b.example"}, {"smtps://", "", "a@b.example"}, {"smtps://me:pw@mail.example", "pw", "a@b.example"},
		{"smtps://me@mail.example", "", "a@b.example"}, {"smtps://mail.example", "", ""}, {"smtps://mail.example/x", "", "a@b.example"},
	} {
		if _, err := NewMailer(row.address, row.password, row.from, nil); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%+v: %v", row, err)
		}
	}
	m, err := NewMailer("smtp://mail.example", "", "Ops <a@b.example>", nil)
	if err != nil || m.port != "587" || m.clear {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestLetterWithFiles: what goes with a mail arrives byte for byte, and the server's word that it took it is kept.
func TestLetterWithFiles(t *testing.T) {
	p := openPostOffice(t, func(*testpeers.PostOffice) {})
	m, err := NewMailer("smtp://"+p.Addr, "", "ot@maker.example", p.Roots)
	if err != nil {
		t.Fatal(err)
	}
	file := []byte(strings.Repeat("{\"ü\":1}\r\n.\r\n", 50))
	answer, err := m.Send(t.Context(), Letter{ID: "idl_1", To: "eve@buyer.example", Subject: "Zwei", Text: "Grüße\n.\nEnde", Language: "de", Files: []File{{"advisory.json", "application/json", file}}})
	if err != nil || answer != "250 2.0.0 taken" {
		t.Fatalf("%q, %v", answer, err)
	}
	l := <-p.Letters
	kind, params, err := mime.ParseMediaType(l.Message.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/mixed" || l.Message.Header.Get("Content-Language") != "de" {
		t.Fatalf("%v, %v", l.Message.Header, err)
	}
	parts := multipart.NewReader(strings.NewReader(string(l.Raw[strings.Index(string(l.Raw), "--"+params["boundary"]):])), params["boundary"])
	text, err := parts.NextPart() // decodes quoted-printable by itself
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(text); err != nil || string(b) != "Grüße\n.\nEnde\n" && string(b) != "Grüße\r\n.\r\nEnde\r\n" {
		t.Errorf("text %q, %v", b, err)
	}
	enclosed, err := parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, enclosed)); err != nil || string(b) != string(file) || enclosed.FileName() != "advisory.json" {
		t.Errorf("file %q of %d bytes, %v", enclosed.FileName(), len(b), err)
	}
}
