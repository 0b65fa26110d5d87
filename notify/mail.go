// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/netip"
	"net/smtp"
	"net/url"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// Mailer hands mail to a server (RFC 5321).
type Mailer struct {
	host, port string
	implicit   bool // TLS from the first byte (RFC 8314); otherwise STARTTLS is demanded
	clear      bool // a server of this machine, which may do without TLS
	user       string
	password   string
	from       mail.Address
	roots      *x509.CertPool // nil: those of the machine
}

// NewMailer reads an address such as smtps://openthings@mail.example:465 or smtp://mail.example:587; with smtp the
// server must offer STARTTLS unless it is on this machine. from is the sender; the password is not part of the address,
// so that no list of processes shows it. roots nil means those of the machine.
func NewMailer(address, password, from string, roots *x509.CertPool) (*Mailer, error) {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.Scheme != "smtp" && u.Scheme != "smtps" || strings.Trim(u.Path, "/") != "" {
		return nil, problem.Invalid("A mail server is named as smtps://user@mail.example:465 or smtp://mail.example:587.").At("--mail")
	}
	if _, has := u.User.Password(); has {
		return nil, problem.Invalid("The password of the mail server does not belong into its address.").At("--mail").Hint("Put it into a file: --mail-password-file.")
	}
	m := &Mailer{host: u.Hostname(), port: u.Port(), implicit: u.Scheme == "smtps", user: u.User.Username(), password: password, roots: roots}
	if m.port == "" {
		m.port = map[bool]string{true: "465", false: "587"}[m.implicit]
	}
	ip, notIP := netip.ParseAddr(m.host)
	m.clear = m.host == "localhost" || notIP == nil && ip.IsLoopback()
	a, err := mail.ParseAddress(from)
	if err != nil || strings.ContainsAny(a.Address, "\r\n") {
		return nil, problem.Invalid("Mail needs a sender, such as openthings@maker.example.").At("--mail-from").Because(err)
	}
	m.from = *a
	if m.user != "" && password == "" {
		return nil, problem.Invalid("The mail server wants a password for %s.", m.user).At("--mail-password-file")
	}
	return m, nil
}

// send hands over one mail. Its error names the step; it never holds the password.
func (m *Mailer) send(ctx context.Context, to string, d Delivery) error {
	deadline, _ := ctx.Deadline()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(m.host, m.port))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	secure := &tls.Config{ServerName: m.host, MinVersion: tls.VersionTLS12, RootCAs: m.roots}
	if m.implicit {
		conn = tls.Client(conn, secure)
	}
	c, err := smtp.NewClient(conn, m.host)
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if !m.implicit {
		if ok, _ := c.Extension("STARTTLS"); ok {
			if err := c.StartTLS(secure); err != nil {
				return fmt.Errorf("STARTTLS: %w", err)
			}
		} else if !m.clear {
			return fmt.Errorf("the mail server %s offers no TLS", m.host)
		}
	}
	if m.user != "" {
		if err := c.Auth(smtp.PlainAuth("", m.user, m.password, m.host)); err != nil {
			return fmt.Errorf("sign-in: %w", err)
		}
	}
	if err := c.Mail(m.from.Address); err != nil {
		return fmt.Errorf("sender: %w", err)
	}
	if err := c.Rcpt(to); err != nil {
		return fmt.Errorf("recipient: %w", err)
	}
	w, err := c.Data()
	if err != nil {
		return fmt.Errorf("data: %w", err)
	}
	if _, err := w.Write(m.text(to, d)); err != nil {
		return err
	}
	if err := w.Close(); err != nil { // the server's word that it has the mail
		return fmt.Errorf("data: %w", err)
	}
	_ = c.Quit() // it has the mail; how it says good-bye changes nothing
	return nil
}

// text is the mail in the form of RFC 5322.
func (m *Mailer) text(to string, d Delivery) []byte {
	_, domain, _ := strings.Cut(m.from.Address, "@")
	var b bytes.Buffer
	for _, h := range [][2]string{
		{"From", m.from.String()}, {"To", (&mail.Address{Address: to}).String()}, {"Subject", mime.QEncoding.Encode("utf-8", plain(d.Title, maxText))},
		{"Date", d.At.UTC().Format(time.RFC1123Z)}, {"Message-ID", "<" + d.ID + "@" + domain + ">"},
		{"Auto-Submitted", "auto-generated"}, // RFC 3834: no out-of-office answers, please
		{"MIME-Version", "1.0"}, {"Content-Type", "text/plain; charset=utf-8"}, {"Content-Transfer-Encoding", "quoted-printable"},
	} {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	text := d.notice.Text
	if d.notice.Link != "" {
		text += "\n\n" + d.notice.Link
	}
	_, _ = q.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n") + "\r\n")) // a buffer takes everything
	_ = q.Close()
	return b.Bytes()
}
