// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http/httptest"
	"net/mail"
	"net/textproto"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/problem"
)

// letter is what a mail server took.
type letter struct {
	tls, auth, from, to string
	message             *mail.Message
	body                string
}

// postOffice is a mail server that speaks as much of RFC 5321, 3207 and 4954 as a client needs.
type postOffice struct {
	t        *testing.T
	cert     tls.Certificate
	roots    *x509.CertPool
	starttls bool
	implicit bool
	refuse   string // command that it refuses
	letters  chan letter
	addr     string
}

func openPostOffice(t *testing.T, edit func(*postOffice)) *postOffice {
	t.Helper()
	web := httptest.NewUnstartedServer(nil) // its certificate for 127.0.0.1 serves here too
	web.StartTLS()
	t.Cleanup(web.Close)
	p := &postOffice{t: t, cert: web.TLS.Certificates[0], roots: x509.NewCertPool(), starttls: true, letters: make(chan letter, 10)}
	p.roots.AddCert(web.Certificate())
	edit(p)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p.addr = l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *postOffice) serve(c net.Conn) {
	defer c.Close()
	var got letter
	secure := func() {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{p.cert}})
		got.tls = "none"
		if s.Handshake() == nil {
			got.tls = tls.VersionName(s.ConnectionState().Version)
		}
		c = s
	}
	if p.implicit {
		secure()
	}
	r := textproto.NewReader(bufio.NewReader(c))
	say := func(lines ...string) { io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n") } //nolint:errcheck // the client may have gone
	say("220 office ready")
	for {
		line, err := r.ReadLine()
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(line, " ")
		if verb = strings.ToUpper(verb); verb == p.refuse {
			say("550 5.7.1 not here")
			continue
		}
		switch verb {
		case "EHLO":
			offers := []string{"250-office"}
			if p.starttls && got.tls == "" {
				offers = append(offers, "250-STARTTLS")
			}
			say(append(offers, "250 AUTH PLAIN")...)
		case "STARTTLS":
			say("220 go")
			secure()
			r = textproto.NewReader(bufio.NewReader(c))
		case "AUTH":
			b, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			got.auth = strings.ReplaceAll(string(b), "\x00", "|")
			say("235 welcome")
		case "MAIL":
			got.from = rest
			say("250 ok")
		case "RCPT":
			got.to = rest
			say("250 ok")
		case "DATA":
			say("354 go")
			b, err := r.ReadDotBytes()
			if err != nil {
				return
			}
			if got.message, err = mail.ReadMessage(strings.NewReader(string(b))); err != nil {
				p.t.Error(err)
				return
			}
			text, err := io.ReadAll(quotedprintable.NewReader(got.message.Body))
			if err != nil {
				p.t.Error(err)
			}
			got.body = string(text)
			p.letters <- got
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("502 what?")
		}
	}
}

// TestMail: a notice arrives as a well-formed mail, over TLS, from who was signed in.
func TestMail(t *testing.T) {
	for _, implicit := range []bool{false, true} {
		each(t, func(t *testing.T, h *house) {
			p := openPostOffice(t, func(p *postOffice) { p.implicit = implicit })
			scheme := map[bool]string{true: "smtps", false: "smtp"}[implicit]
			m, err := NewMailer(scheme+"://ot@"+p.addr, "planted-password", "OpenThings <ot@maker.example>", p.roots)
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
			l := <-p.letters
			subject, err := new(mime.WordDecoder).DecodeHeader(l.message.Header.Get("Subject"))
			if err != nil || subject != "Zu heiß  Bcc: all@maker.example" || l.message.Header.Get("Bcc") != "" {
				t.Errorf("subject %q, %v", subject, err)
			}
			if l.tls == "" || l.auth != "|ot|planted-password" || !strings.Contains(l.from, "<ot@maker.example>") || !strings.Contains(l.to, "<psirt@maker.example>") {
				t.Errorf("%+v", l)
			}
			if want := "81 °C\n.\n-- \nmore\n\nhttps://ot.example:8443/alarms/alm_1\n"; strings.ReplaceAll(l.body, "\r\n", "\n") != want {
				t.Errorf("body %q", l.body)
			}
			if id := l.message.Header.Get("Message-ID"); !strings.HasPrefix(id, "<ndl_") || !strings.HasSuffix(id, "@maker.example>") || l.message.Header.Get("Auto-Submitted") != "auto-generated" {
				t.Errorf("%v", l.message.Header)
			}
		})
	}
}

// TestMailRefused: a refusal of the server is no delivery, and its words are kept; a server whose certificate
// nobody vouches for gets nothing, the password least of all.
func TestMailRefused(t *testing.T) {
	for name, row := range map[string]struct {
		edit  func(*postOffice)
		roots bool
		want  string
	}{
		"a refused recipient":  {func(p *postOffice) { p.refuse = "RCPT" }, true, "recipient: 550"},
		"a refused letter":     {func(p *postOffice) { p.refuse = "DATA" }, true, "data: 550"},
		"an unknown authority": {func(*postOffice) {}, false, "STARTTLS: "},
	} {
		p := openPostOffice(t, row.edit)
		roots := p.roots
		if !row.roots {
			roots = x509.NewCertPool()
		}
		m, err := NewMailer("smtp://ot@"+p.addr, "planted-password", "ot@maker.example", roots)
		if err != nil {
			t.Fatal(err)
		}
		err = m.send(t.Context(), "psirt@maker.example", Delivery{ID: "ndl_1"})
		if err == nil || !strings.HasPrefix(err.Error(), row.want) || strings.Contains(err.Error(), "planted") || len(p.letters) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A server elsewhere that offers no TLS gets nothing.
	p := openPostOffice(t, func(p *postOffice) { p.starttls = false })
	m, err := NewMailer("smtp://"+p.addr, "", "ot@maker.example", p.roots)
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
