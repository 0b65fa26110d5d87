// SPDX-License-Identifier: AGPL-3.0-only

package testpeers

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"net"
	"net/http/httptest"
	"net/mail"
	"net/textproto"
	"strings"
)

// Letter is what a mail server took. Message is nil where Raw is no mail; Body is the text of one that is not multipart,
// decoded.
type Letter struct {
	TLS, Auth, From, To string
	Message             *mail.Message
	Raw                 []byte
	Body                string
}

// PostOffice is a mail server on loopback that speaks as much of RFC 5321, 3207 and 4954 as a client needs.
type PostOffice struct {
	Addr    string
	Cert    *x509.Certificate // for 127.0.0.1
	Roots   *x509.CertPool    // that vouch for it
	Letters chan Letter       // as they were taken; it has room for 1,000

	NoTLS    bool                           // STARTTLS is not offered
	Implicit bool                           // TLS from the first byte
	Refuse   func(verb, rest string) string // the answer to a command that is refused, such as "550 5.1.1 nobody"; empty: it is taken

	pair   tls.Certificate
	listen net.Listener
}

// OpenPostOffice opens one; edit changes how it behaves before it does.
func OpenPostOffice(edit func(*PostOffice)) (*PostOffice, error) {
	web := httptest.NewUnstartedServer(nil) // its certificate for 127.0.0.1 serves here too
	web.StartTLS()
	defer web.Close()
	p := &PostOffice{pair: web.TLS.Certificates[0], Cert: web.Certificate(), Roots: x509.NewCertPool(), Letters: make(chan Letter, 1000),
		Refuse: func(string, string) string { return "" }}
	p.Roots.AddCert(p.Cert)
	edit(p)
	var err error
	if p.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	p.Addr = p.listen.Addr().String()
	go func() {
		for {
			c, err := p.listen.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p, nil
}

// Close takes no further connection.
func (p *PostOffice) Close() { p.listen.Close() }

func (p *PostOffice) serve(c net.Conn) {
	defer c.Close()
	var got Letter
	secure := func() {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{p.pair}})
		got.TLS = "none"
		if s.Handshake() == nil {
			got.TLS = tls.VersionName(s.ConnectionState().Version)
		}
		c = s
	}
	if p.Implicit {
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
		verb = strings.ToUpper(verb)
		if no := p.Refuse(verb, rest); no != "" {
			say(no)
			continue
		}
		switch verb {
		case "EHLO":
			offers := []string{"250-office"}
			if !p.NoTLS && got.TLS == "" {
				offers = append(offers, "250-STARTTLS")
			}
			say(append(offers, "250 AUTH PLAIN")...)
		case "STARTTLS":
			say("220 go")
			secure()
			r = textproto.NewReader(bufio.NewReader(c))
		case "AUTH":
			b, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			got.Auth = strings.ReplaceAll(string(b), "\x00", "|")
			say("235 welcome")
		case "MAIL":
			got.From = rest
			say("250 ok")
		case "RCPT":
			got.To = rest
			say("250 ok")
		case "DATA":
			say("354 go")
			if got.Raw, err = r.ReadDotBytes(); err != nil {
				return
			}
			if got.Message, err = mail.ReadMessage(bytes.NewReader(got.Raw)); err == nil {
				text, _ := io.ReadAll(quotedprintable.NewReader(got.Message.Body))
				got.Body = string(text)
			}
			p.Letters <- got
			say("250 2.0.0 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("502 what?")
		}
	}
}
