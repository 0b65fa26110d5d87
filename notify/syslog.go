// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"unicode/utf16"
)

// maxSyslog is what every receiver should take (RFC 5425, section 4.3.1), in bytes.
const maxSyslog = 8192

// facility is "log alert" (RFC 5424, table 1).
const facility = 14

// levels are the severities in the numbers of RFC 5424, table 2.
var levels = map[Severity]int{Critical: 2, Grave: 3, Warning: 4, Info: 6}

// log hands one message to a syslog receiver. The protocol has no word for "taken": that the receiver closes the connection
// in answer to our closing it says that it read all of it, and is the most that can be known.
func (s *Service) log(ctx context.Context, e Endpoint, d Delivery) error {
	host, _, err := net.SplitHostPort(e.Address)
	if err != nil {
		return err
	}
	secure := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if e.Authority != "" {
		secure.RootCAs = x509.NewCertPool()
		secure.RootCAs.AppendCertsFromPEM([]byte(e.Authority))
	}
	raw, err := s.dialer.DialContext(ctx, "tcp", e.Address)
	if err != nil {
		return err
	}
	defer raw.Close()
	deadline, _ := ctx.Deadline()
	if err := raw.SetDeadline(deadline); err != nil {
		return err
	}
	conn := tls.Client(raw, secure)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	m := d.syslog(s.host())
	if _, err := fmt.Fprintf(conn, "%d %s", len(m), m); err != nil { // RFC 5425, section 4.3
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	// A receiver may close without a word of TLS, but not tear the connection down: then something was left unread.
	if _, err := io.Copy(io.Discard, io.LimitReader(conn, maxAnswer)); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("not read to its end: %w", err)
	}
	return nil
}

// syslog is a delivery as RFC 5424 has it. The message is the JSON of a webhook, in ASCII, which needs no byte order mark;
// what would not fit is left out, the facts first.
func (d Delivery) syslog(host string) []byte {
	m := d.message()
	head := fmt.Sprintf("<%d>1 %s %s openthings - %s [origin software=\"OpenThings\"][openthings@32473%s] ", facility*8+levels[d.notice.Severity],
		d.At.UTC().Format("2006-01-02T15:04:05.000Z"), printable(host, 255), printable(d.Topic, 32),
		params("id", d.ID, "topic", d.Topic, "subject", d.Subject, "thread", d.notice.Thread, "phase", string(d.notice.Phase)))
	for _, leave := range []func(){func() {}, func() { m.Data.Facts = json.RawMessage("null") }, func() { m.Data.Text = "" }} {
		leave()
		if b, err := json.Marshal(m); err == nil && len(head)+len(ascii(b)) <= maxSyslog { // what was told as JSON can be written as such
			return append([]byte(head), ascii(b)...)
		}
	}
	return []byte(strings.TrimSuffix(head, " ")) // the structured data alone; a title always fits
}

// printable is a field of the header: printable ASCII without spaces, or the nil value.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}

// escape is how values of structured data are written (RFC 5424, section 6.3.3).
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`)

// params are the parameters of an element of structured data that have a value.
func params(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if v := plain(pairs[i+1], 300); v != "" {
			fmt.Fprintf(&b, ` %s="%s"`, pairs[i], escape.Replace(v))
		}
	}
	return b.String()
}

// ascii writes the other characters of a JSON text as its escapes.
func ascii(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for _, r := range string(b) {
		switch {
		case r < 0x7f:
			out = append(out, byte(r))
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}
