// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/smtp"
	"net/url"
	"strings"

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

// send tells one endpoint of a notice.
func (m *Mailer) send(ctx context.Context, to string, d Delivery) error {
	text := d.notice.Text
	if d.notice.Link != "" {
		text += "\n\n" + d.notice.Link
	}
	_, err := m.Send(ctx, Letter{ID: d.ID, To: to, Subject: d.Title, At: d.At, Text: text})
	return err
}

// Send hands over one mail within the deadline of ctx and returns what the server said when it took it. Its error names the
// step and holds the server's refusal as a *textproto.Error; it never holds the password.
func (m *Mailer) Send(ctx context.Context, l Letter) (answer string, err error) {
	deadline, _ := ctx.Deadline()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(m.host, m.port))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	secure := &tls.Config{ServerName: m.host, MinVersion: tls.VersionTLS12, RootCAs: m.roots}
	if m.implicit {
		conn = tls.Client(conn, secure)
	}
	c, err := smtp.NewClient(conn, m.host)
	if err != nil {
		return "", fmt.Errorf("greeting: %w", err)
	}
	if !m.implicit {
		if ok, _ := c.Extension("STARTTLS"); ok {
			if err := c.StartTLS(secure); err != nil {
				return "", fmt.Errorf("STARTTLS: %w", err)
			}
		} else if !m.clear {
			return "", fmt.Errorf("the mail server %s offers no TLS", m.host)
		}
	}
	if m.user != "" {
		if err := c.Auth(smtp.PlainAuth("", m.user, m.password, m.host)); err != nil {
			return "", fmt.Errorf("sign-in: %w", err)
		}
	}
	if err := c.Mail(m.from.Address); err != nil {
		return "", fmt.Errorf("sender: %w", err)
	}
	if err := c.Rcpt(l.To); err != nil {
		return "", fmt.Errorf("recipient: %w", err)
	}
	if answer, err = hand(c, m.text(l)); err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	_ = c.Quit() // it has the mail; how it says good-bye changes nothing
	return answer, nil
}

// hand is smtp.Client.Data that keeps the server's word that it has the mail.
func hand(c *smtp.Client, message []byte) (answer string, err error) {
	id, err := c.Text.Cmd("DATA")
	if err != nil {
		return "", err
	}
	c.Text.StartResponse(id)
	_, _, err = c.Text.ReadResponse(354)
	c.Text.EndResponse(id)
	if err != nil {
		return "", err
	}
	w := c.Text.DotWriter()
	if _, err := w.Write(message); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	code, said, err := c.Text.ReadResponse(250)
	return plain(fmt.Sprint(code, " ", said), 300), err
}
