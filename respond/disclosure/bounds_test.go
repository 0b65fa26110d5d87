// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/openthings-platform/openthings/problem"
)

// from posts a form to the desk from an address of a stranger.
func (h *house) from(door http.Handler, address, path, kind string, body io.Reader) answer {
	h.t.Helper()
	r := httptest.NewRequest(http.MethodPost, here+path, body)
	r.RemoteAddr = address
	r.Header.Set("Content-Type", kind)
	w := httptest.NewRecorder()
	door.ServeHTTP(w, r)
	return answer{w, w.Body.String(), w.Header().Get("Location")}
}

// parts is a body of fields and files: name, file name or "", content.
func parts(t testing.TB, all ...[3]string) (kind string, body *bytes.Buffer) {
	t.Helper()
	body = &bytes.Buffer{}
	m := multipart.NewWriter(body)
	for _, p := range all {
		head := map[string][]string{"Content-Disposition": {fmt.Sprintf(`form-data; name=%q`, p[0])}}
		if p[1] != "" {
			head["Content-Disposition"][0] += `; filename="` + p[1] + `"`
		}
		w, err := m.CreatePart(head)
		if err == nil {
			_, err = io.WriteString(w, p[2])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	return m.FormDataContentType(), body
}

const formKind = "application/x-www-form-urlencoded"

// TestAnAddressSendsOnlySoMuch: it is told what to do instead, others go on, and so does it after a while.
func TestAnAddressSendsOnlySoMuch(t *testing.T) {
	h := one(t)
	strangers, _ := h.doors(nil)
	at := "/security/" + maker + "/report"
	send := func(address string) answer {
		return h.from(strangers, address, at, formKind, strings.NewReader("text=overflow"))
	}
	for i := range sendingsBurst {
		if got := send("192.0.2.1:1"); got.Code != http.StatusSeeOther {
			t.Fatalf("sending %d: %d", i, got.Code)
		}
	}
	if got := send("192.0.2.1:2"); got.Code != http.StatusTooManyRequests || !strings.Contains(got.body, "security.txt") {
		t.Errorf("one too many: %d\n%s", got.Code, got.body)
	}
	if got := send("192.0.2.2:1"); got.Code != http.StatusSeeOther {
		t.Errorf("somebody else: %d", got.Code)
	}
	h.hand.Advance(2 * time.Minute)
	if got := send("192.0.2.1:3"); got.Code != http.StatusSeeOther {
		t.Errorf("after a while: %d", got.Code)
	}
}

// TestAFloodOfOneTenantIsBounded: many addresses together fill neither the desk nor another tenant's, and the house's own
// people still enter what came by mail.
func TestAFloodOfOneTenantIsBounded(t *testing.T) {
	h := one(t)
	for range floodBurst {
		h.must(h.flood.Take(maker, 1))
	}
	strangers, _ := h.doors(nil)
	got := h.from(strangers, "192.0.2.1:1", "/security/"+maker+"/report", formKind, strings.NewReader("text=overflow"))
	if got.Code != http.StatusTooManyRequests || !strings.Contains(got.body, "security.txt") {
		t.Errorf("%d %v\n%s", got.Code, got.Header(), got.body)
	}
	if got := h.from(strangers, "192.0.2.1:1", "/security/ten_other/report", formKind, strings.NewReader("text=overflow")); got.Code != http.StatusSeeOther {
		t.Errorf("another tenant: %d", got.Code)
	}
	if _, err := h.Enter(ann, Intake{Channel: "mail", Sending: Sending{Exploited: "no", Words: Words{Text: "by mail"}}}); err != nil {
		t.Errorf("a person: %v", err)
	}
}

// TestSizesOfASendingAreBounded: of each file, of all, of their number, of the text and of its fields; whoever was refused
// left nothing.
func TestSizesOfASendingAreBounded(t *testing.T) {
	h := one(t)
	strangers, _ := h.doors(nil)
	at := "/security/" + maker + "/report"
	big := strings.Repeat("x", maxFile)
	var many, tiny [][3]string
	for range maxFiles + 1 {
		many = append(many, [3]string{"file", "a", "x"})
	}
	for range maxFields / fieldCost {
		tiny = append(tiny, [3]string{"f", "", "x"})
	}
	text := [3]string{"text", "", "overflow"}
	for name, c := range map[string][][3]string{
		"a file too large":  {text, {"file", "a", big + "x"}},
		"files too large":   {text, {"file", "a", big}, {"file", "b", big}, {"file", "c", "x"}},
		"too many files":    append(many, text),
		"too long a text":   {{"text", "", strings.Repeat("x", maxFields)}},
		"more than 200,000": {{"text", "", strings.Repeat("x", maxText+1)}},
		"too many fields":   append(tiny, text),
	} {
		kind, body := parts(t, c...)
		if got := h.from(strangers, "192.0.2.1:1", at, kind, body); got.Code != http.StatusRequestEntityTooLarge && got.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", name, got.Code)
		}
	}
	if got := h.from(strangers, "192.0.2.1:1", at, formKind, strings.NewReader("text="+strings.Repeat("x", 3*maxFields))); got.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a long form without files: %d", got.Code)
	}
	kind, body := parts(t, text, [3]string{"file", "a", big})
	if got := h.from(strangers, "192.0.2.1:1", at, kind, body); got.Code != http.StatusSeeOther {
		t.Errorf("all that a file may hold: %d %s", got.Code, got.body)
	}
	rs, err := h.Reports(ann, false, "", 10)
	h.must(err)
	if len(rs) != 1 || h.held.Load() != 0 || len(h.lines.open) != 0 {
		t.Errorf("%d reports, %d bytes held, lines %v", len(rs), h.held.Load(), h.lines.open)
	}
}

// TestWhoSendsSlowlyHoldsNobodyUp: a body that never ends keeps a line of its own address and nothing else.
func TestWhoSendsSlowlyHoldsNobodyUp(t *testing.T) {
	h := one(t)
	strangers, _ := h.doors(nil)
	at := "/security/" + maker + "/report"
	const kind = "multipart/form-data; boundary=b"
	ended := make(chan int)
	var open []*io.PipeWriter
	for range maxLines {
		r, w := io.Pipe()
		open = append(open, w)
		go func() { ended <- h.from(strangers, "192.0.2.1:1", at, kind, r).Code }()
		_, err := io.WriteString(w, "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nxxxx") // read, so the line is taken
		h.must(err)
	}
	full, body := parts(t, [3]string{"text", "", "overflow"}, [3]string{"file", "a", "x"})
	again := body.String()
	if got := h.from(strangers, "192.0.2.1:1", at, full, body); got.Code != http.StatusTooManyRequests {
		t.Errorf("one line too many: %d", got.Code)
	}
	if got := h.from(strangers, "192.0.2.1:1", at, formKind, strings.NewReader("text=overflow")); got.Code != http.StatusSeeOther {
		t.Errorf("text from the same address: %d", got.Code)
	}
	if got := h.from(strangers, "192.0.2.2:1", at, full, strings.NewReader(again)); got.Code != http.StatusSeeOther {
		t.Errorf("somebody else: %d %s", got.Code, got.body)
	}
	for _, w := range open {
		h.must(w.CloseWithError(io.ErrUnexpectedEOF))
		if code := <-ended; code != http.StatusBadRequest {
			t.Errorf("a sending that broke off: %d", code)
		}
	}
	if got := h.from(strangers, "192.0.2.1:1", at, full, strings.NewReader(again)); got.Code != http.StatusSeeOther || h.held.Load() != 0 {
		t.Errorf("after they broke off: %d, %d bytes held", got.Code, h.held.Load())
	}
}

// TestHostileFilesAreBytes: whatever a stranger calls a file and whatever it claims to be, the desk hands out bytes under a
// name of its own, to whoever may read it, and shows its name as text.
func TestHostileFilesAreBytes(t *testing.T) {
	h := one(t)
	strangers, _ := h.doors(nil)
	desk, _ := h.doors(ann)
	auditor, _ := h.doors(signedIn("per_aud", "auditor"))
	polyglot := "GIF89a/*<svg onload=alert(1)>*/=1;%PDF-1.7\nPK\x03\x04\x00<script>alert(2)</script>"
	for name, want := range map[string]string{
		`../../../etc/passwd`: "passwd", `C:\\Users\\eve\\poc.exe`: "poc.exe", `..`: "file", `a\"b.html`: `a"b.html`, "<img src=x onerror=alert(1)>": "<img src=x onerror=alert(1)>",
		"exe.\u202etxt": "exe._txt", strings.Repeat("n", 400): strings.Repeat("n", maxName), "a\u2028b": "a_b",
	} {
		kind, body := parts(t, [3]string{"text", "", "see " + fmt.Sprint(len(name))}, [3]string{"file", name, polyglot})
		got := h.from(strangers, fmt.Sprintf("192.0.2.%d:1", len(name)%250), "/security/"+maker+"/report", kind, body)
		if got.Code != http.StatusSeeOther {
			t.Errorf("%q: %d: a report is lost to a name", name, got.Code)
			continue
		}
		rs, err := h.Reports(ann, false, "", 1)
		h.must(err)
		r := h.seen(ann, rs[0].ID)
		read, err := h.Open(ann, r.ID)
		h.must(err)
		kept := read.Sent[0].Words.Files[0].Name
		if kept != want || strings.ContainsFunc(kept, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is kept as %q, want %q", name, kept, want)
		}
		path := "/disclosure/reports/" + r.ID
		if opened := h.form(desk, path+"/open", nil); strings.Contains(opened.body, "<img src=x") || strings.Contains(opened.body, "<svg onload") {
			t.Errorf("%q is drawn", name)
		}
		file := h.form(desk, path+"/attachments/"+r.Attachments[0].ID, nil)
		head := file.Header()
		if file.body != polyglot || head.Get("Content-Type") != "application/octet-stream" || head.Get("X-Content-Type-Options") != "nosniff" ||
			head.Get("Content-Disposition") != `attachment; filename="`+r.Attachments[0].ID+`.bin"` || head.Get("Cache-Control") != "no-store" || head.Get("Content-Security-Policy") == "" {
			t.Errorf("%q: %v", name, head)
		}
		if got := h.form(auditor, path+"/attachments/"+r.Attachments[0].ID, nil); got.Code != http.StatusForbidden || strings.Contains(got.body, "GIF89a") {
			t.Errorf("who may only read cases took the file: %d", got.Code)
		}
		if got := h.ask(desk, http.MethodGet, path+"/attachments/"+r.Attachments[0].ID, "", nil); got.Code == http.StatusOK {
			t.Error("a link alone fetches the file")
		}
	}
}

// TestWhatUnfoldsIsBounded: a small message that claims to be a huge one is refused once it is too long, and a file that was
// encrypted without armor, as tools do by default, opens.
func TestWhatUnfoldsIsBounded(t *testing.T) {
	h := one(t)
	bomb := h.unarmored(io.LimitReader(zeros{}, decryptedFile+1))
	if len(bomb) > maxFile/10 {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	got := h.sent(Intake{Sending: Sending{Files: []Upload{{Name: "bomb.gpg", Body: bomb}, {Name: "poc.zip.gpg", Body: h.unarmored(strings.NewReader("PK..."))}}}})
	r := h.seen(ann, got.ID)
	if r.Cipher != cipherPGP {
		t.Errorf("taken for %q", r.Cipher)
	}
	if b, err := h.Attachment(ann, got.ID, r.Attachments[0].ID, true); !problem.Is(err, problem.KindTooLarge) || b != nil {
		t.Errorf("a bomb went off: %d bytes, %v", len(b), err)
	}
	if b, err := h.Attachment(ann, got.ID, r.Attachments[0].ID, false); err != nil || !bytes.Equal(b, bomb) {
		t.Errorf("as it came: %d bytes, %v", len(b), err)
	}
	if b, err := h.Attachment(ann, got.ID, r.Attachments[1].ID, true); err != nil || string(b) != "PK..." {
		t.Errorf("%q, %v", b, err)
	}
}

// unarmored is a compressed message to the maker's OpenPGP key, in binary.
func (h *house) unarmored(plain io.Reader) []byte {
	h.t.Helper()
	k, err := h.pgp.Signer(h.t.Context(), maker, "system", "Acme Ltd")
	h.must(err)
	ring, err := openpgp.ReadArmoredKeyRing(strings.NewReader(k.Public))
	h.must(err)
	to, ok := ring[0].EncryptionKey(h.hand.Now())
	if !ok {
		h.t.Fatal("the key encrypts nothing")
	}
	var b bytes.Buffer
	session := bytes.Repeat([]byte{7}, 32)
	h.must(packet.SerializeEncryptedKeyAEAD(&b, to.PublicKey, packet.CipherAES256, false, session, nil))
	sealed, err := packet.SerializeSymmetricallyEncrypted(&b, packet.CipherAES256, false, packet.CipherSuite{}, session, nil)
	h.must(err)
	packed, err := packet.SerializeCompressed(sealed, packet.CompressionZLIB, &packet.CompressionConfig{Level: 9})
	h.must(err)
	literal, err := packet.SerializeLiteral(packed, true, "", 0)
	h.must(err)
	_, err = io.Copy(literal, plain)
	h.must(errors.Join(err, literal.Close(), packed.Close(), sealed.Close()))
	return b.Bytes()
}

// BenchmarkIntake takes reports with a file of 1 MB in through the public form, and says how long a finder waited for the
// number at most.
func BenchmarkIntake(b *testing.B) {
	h := one(b)
	strangers, _ := h.doors(nil)
	kind, body := parts(b, [3]string{"text", "", "overflow"}, [3]string{"exploited", "", "yes"}, [3]string{"file", "poc.bin", strings.Repeat("x", 1<<20)})
	var longest time.Duration
	for i := 0; b.Loop(); i++ {
		h.hand.Advance(time.Minute) // no rate
		start := time.Now()
		if got := h.from(strangers, fmt.Sprintf("192.0.2.%d:1", i%250), "/security/"+maker+"/report", kind, bytes.NewReader(body.Bytes())); got.Code != http.StatusSeeOther {
			b.Fatalf("%d %s", got.Code, got.body)
		}
		longest = max(longest, time.Since(start))
	}
	b.ReportMetric(float64(longest.Microseconds())/1000, "ms-at-most")
}

// zeros never end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// FuzzSending: a stranger's body becomes a sending within its bounds or is refused; nothing stays held.
func FuzzSending(f *testing.F) {
	kind, body := parts(f, [3]string{"text", "", "overflow"}, [3]string{"exploited", "", "yes"}, [3]string{"file", "../a\u202e.html", "<script>"}, [3]string{"file", "", ""})
	f.Add(kind, body.Bytes())
	f.Add(formKind, []byte("text=a%zz&subject=%00"))
	f.Add("multipart/form-data", []byte("--\r\n"))
	f.Add("multipart/form-data; boundary=b", []byte("--b\r\nContent-Disposition: form-data; name=\"file\"; filename*=UTF-8''%2e%2e%2f\r\n\r\nx\r\n--b--"))
	f.Add("multipart/form-data; boundary=b", []byte("--b\r\nContent-Disposition: form-data; filename=\"a\r\nSet-Cookie: x\"\r\n\r\nx"))
	h := one(f)
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		r := httptest.NewRequest(http.MethodPost, here+"/security/x/report", bytes.NewReader(body))
		r.RemoteAddr = "192.0.2.1:1"
		r.Header = http.Header{"Content-Type": {kind}}
		h.hand.Advance(time.Hour) // no rate
		in, release, err := h.read(r)
		fields := 0
		for name, values := range r.PostForm {
			for _, v := range values {
				fields += len(name) + len(v)
			}
		}
		if err == nil && (len(in.Files) > maxFiles || fields > 3*maxFields) {
			t.Errorf("%d files, %d bytes of fields", len(in.Files), fields)
		}
		for _, u := range in.Files {
			if strings.ContainsAny(u.Name, "/\\\r\n\x00") || u.Name == "" || strings.Trim(u.Name, ".") == "" || !utf8.ValidString(u.Name) || utf8.RuneCountInString(u.Name) > maxName {
				t.Errorf("a file is called %q", u.Name)
			}
		}
		if release(); h.held.Load() != 0 || len(h.lines.open) != 0 {
			t.Errorf("%d bytes held, lines %v", h.held.Load(), h.lines.open)
		}
	})
}
