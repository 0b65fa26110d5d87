// SPDX-License-Identifier: AGPL-3.0-only

package notify

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
	"time"
)

// Letter is one mail. ID makes its Message-ID, so that a repeat is told by it; Language is a language tag.
type Letter struct {
	ID, To, Subject string
	At              time.Time
	Text            string
	Language        string
	Files           []File
}

// File is a document that a mail carries.
type File struct {
	Name, Type string // a media type, such as application/json
	Body       []byte
}

// Wait is the pause after so many attempts; false when the last was made.
func Wait(attempts int64) (time.Duration, bool) {
	if attempts < 1 || attempts > int64(len(waits)) {
		return 0, false
	}
	return waits[attempts-1], true
}

// text is the mail in the form of RFC 5322; with files it is multipart/mixed (RFC 2046).
func (m *Mailer) text(l Letter) []byte {
	_, domain, _ := strings.Cut(m.from.Address, "@")
	var b bytes.Buffer
	head := [][2]string{
		{"From", m.from.String()}, {"To", (&mail.Address{Address: l.To}).String()}, {"Subject", mime.QEncoding.Encode("utf-8", plain(l.Subject, maxText))},
		{"Date", l.At.UTC().Format(time.RFC1123Z)}, {"Message-ID", "<" + l.ID + "@" + domain + ">"},
		{"Auto-Submitted", "auto-generated"}, // RFC 3834: no out-of-office answers, please
		{"MIME-Version", "1.0"},
	}
	if l.Language != "" {
		head = append(head, [2]string{"Content-Language", plain(l.Language, 35)}) // RFC 3282
	}
	for _, h := range head {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	const kind, encoding = "text/plain; charset=utf-8", "quoted-printable"
	if len(l.Files) == 0 {
		fmt.Fprintf(&b, "Content-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n", kind, encoding)
		quoted(&b, l.Text)
		return b.Bytes()
	}
	w := multipart.NewWriter(&b)
	fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=%s\r\n\r\n", w.Boundary())
	// A buffer takes everything, so nothing below can fail.
	part, _ := w.CreatePart(textproto.MIMEHeader{"Content-Type": {kind}, "Content-Transfer-Encoding": {encoding}})
	quoted(part, l.Text)
	for _, f := range l.Files {
		part, _ := w.CreatePart(textproto.MIMEHeader{"Content-Type": {f.Type}, "Content-Transfer-Encoding": {"base64"},
			"Content-Disposition": {mime.FormatMediaType("attachment", map[string]string{"filename": f.Name})}})
		for text := base64.StdEncoding.EncodeToString(f.Body); text != ""; {
			line := text[:min(76, len(text))] // RFC 2045, section 6.8
			_, _ = io.WriteString(part, line+"\r\n")
			text = text[len(line):]
		}
	}
	_ = w.Close()
	return b.Bytes()
}

func quoted(to io.Writer, text string) {
	q := quotedprintable.NewWriter(to)
	_, _ = q.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n") + "\r\n"))
	_ = q.Close()
}
