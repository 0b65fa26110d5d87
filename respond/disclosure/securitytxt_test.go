// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
)

func (h *house) securityTxt(host string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.SecurityTxt(w, httptest.NewRequest(http.MethodGet, "https://"+host+"/.well-known/security.txt", nil))
	return w
}

// TestSecurityTxtServed: signed, as RFC 9116 asks for, of the tenant that answers for the host.
func TestSecurityTxtServed(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		if w := h.securityTxt("iot.example:8443"); w.Code != http.StatusNotFound {
			t.Errorf("%d while it is open who answers", w.Code)
		}
		ct := Contact{Contacts: []string{"mailto:psirt@example.com", "https://example.com/report"}, Policy: "https://example.com/cvd", PreferredLocales: []string{"en", "de"}}
		h.must(h.SetContact(ann, ct))
		w := h.securityTxt("iot.example:8443")
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Fatalf("%d %v", w.Code, w.Header())
		}
		keys, err := h.pgp.Keys(t.Context(), maker)
		h.must(err)
		f := readSecurityTxt(t, w.Body.Bytes(), keys[0].Public, h.hand.Now())
		own := here + "/security/" + maker
		for field, want := range map[string][]string{
			"Contact": {"mailto:psirt@example.com", "https://example.com/report", own + "/report"}, "Canonical": {here + "/.well-known/security.txt"}, "Policy": {ct.Policy},
			"Preferred-Languages": {"en, de"}, "Encryption": {own + "/openpgp.asc", own + "/age.txt"}, "Acknowledgments": {own + "/thanks"},
		} {
			if !slices.Equal(f.fields[field], want) {
				t.Errorf("%s: %q, want %q", field, f.fields[field], want)
			}
		}
		if again := h.securityTxt("iot.example:8443"); again.Body.String() != w.Body.String() {
			t.Error("the file is signed anew for each reader")
		}
		// A second tenant with a host of its own takes nothing away; one without makes it open who answers elsewhere.
		ct.Hosts = []string{"other.example"}
		h.must(h.SetContact(other, ct))
		if w := h.securityTxt("other.example"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Canonical: https://other.example/") || h.securityTxt("iot.example:8443").Code != http.StatusOK {
			t.Error("the host does not decide")
		}
		if err := h.SetContact(ann, ct); !problem.Is(err, problem.KindConflict) {
			t.Errorf("two tenants answer for one host: %v", err)
		}
		ct.Hosts = nil
		h.must(h.SetContact(other, ct))
		if h.securityTxt("other.example").Code != http.StatusNotFound {
			t.Error("one of two tenants without a host answers for all")
		}
	})
}

// TestSecurityTxtOfADefaultInstall: the only manufacturer of a platform can be reached before anybody set anything.
func TestSecurityTxtOfADefaultInstall(t *testing.T) {
	h := one(t)
	h.cfg.Tenants = func(context.Context) ([]string, error) { return []string{maker}, nil }
	w := h.securityTxt("anything.example")
	keys, err := h.pgp.Keys(t.Context(), maker)
	h.must(err)
	f := readSecurityTxt(t, w.Body.Bytes(), keys[0].Public, h.hand.Now())
	if !slices.Equal(f.fields["Contact"], []string{here + "/security/" + maker + "/report"}) || !slices.Equal(f.fields["Policy"], []string{here + "/security/" + maker}) {
		t.Errorf("%v", f.fields)
	}
}

// TestSecurityTxtRenewsItself: what is served is signed anew long before its end; what lies on another site, or cannot be
// signed, is told 30 days before.
func TestSecurityTxtRenewsItself(t *testing.T) {
	each(t, func(t *testing.T, h *house) {
		told := make(chan Expiring, 10)
		h.db.On(TopicExpiring, "test", func(_ context.Context, e store.Event) error {
			var x Expiring
			err := e.Decode(&x)
			told <- x
			return err
		})
		h.must(h.SetContact(ann, Contact{Contacts: []string{"mailto:psirt@example.com"}, Hosts: []string{"iot.example"}}))
		first, err := h.sign(t.Context(), maker, "system", "")
		h.must(err)
		out, err := h.MakeSecurityTxt(ann, "acme.example")
		h.must(err)
		if _, err := h.MakeSecurityTxt(ann, "acme.example/x"); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("a path is a host: %v", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go h.db.RunJobs(ctx) //nolint:errcheck // ends with the test
		start := h.hand.Now()
		h.hand.Set(start.Add(renewEvery))
		for renewed := false; !renewed; {
			kept, err := h.SecurityTxts(ann)
			h.must(err)
			renewed = kept[0].Expires.After(first.Expires)
		}
		h.hand.Set(start.Add(expiresAfter - expiringAhead))
		if x := <-told; x.Host != "acme.example" || !x.Expires.Equal(out.Expires) {
			t.Errorf("told of %+v", x)
		}
		got := h.securityTxt("iot.example").Body.Bytes()
		keys, err := h.pgp.Keys(t.Context(), maker)
		h.must(err)
		if f := readSecurityTxt(t, got, keys[0].Public, h.hand.Now()); !f.expires.After(first.Expires) {
			t.Errorf("still the file that ends %s", f.expires)
		}
		// The same alarm for what is served, once nothing signs it any more.
		h.must(h.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE disclosure_securitytxt SET expires = $1 WHERE host = ''`, store.Millis(h.hand.Now().Add(expiringAhead)))
			if err != nil {
				return err
			}
			end := h.hand.Now().Add(expiringAhead)
			return h.db.Enqueue(tx, jobExpiring, "test", h.hand.Now(), ending{maker, "", store.Millis(end)})
		}))
		if x := <-told; x.Host != "" {
			t.Errorf("told of %+v", x)
		}
	})
}

func TestContactRefused(t *testing.T) {
	for name, c := range map[string]Contact{
		"none":      {},
		"plain":     {Contacts: []string{"psirt@example.com"}},
		"http":      {Contacts: []string{"http://example.com"}},
		"injection": {Contacts: []string{"mailto:a@example.com\nContact: mailto:mallory@example.net"}},
		"space":     {Contacts: []string{"mailto:a@example.com b"}},
		"policy":    {Contacts: []string{"mailto:a@example.com"}, Policy: "javascript:alert(1)"},
		"language":  {Contacts: []string{"mailto:a@example.com"}, PreferredLocales: []string{"en\nX: y"}},
		"host":      {Contacts: []string{"mailto:a@example.com"}, Hosts: []string{"a/b"}},
	} {
		if err := c.Check(); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzSecurityTxt: whatever passes Check makes a file with one field a line.
func FuzzSecurityTxt(f *testing.F) {
	f.Add("mailto:a@example.com", "https://example.com/cvd", "en")
	f.Add("https://example.com/?a=b#c", "", "de-AT")
	f.Add("tel:+49-30-1", "https://example.com/%0aContact", "")
	f.Fuzz(func(t *testing.T, contact, policy, lang string) {
		c := Contact{Contacts: []string{contact}, Policy: policy}
		want := 3
		if policy != "" {
			want++
		}
		if lang != "" {
			c.PreferredLocales = []string{lang}
			want++
		}
		if c.Check() != nil {
			return
		}
		text := c.Text([]string{"https://iot.example/.well-known/security.txt"}, []string{c.Encryption}, time.Unix(1.7e9, 0))
		if n := strings.Count(text, "\n"); n != want || strings.ContainsAny(text, "\r\x00") {
			t.Fatalf("%d lines, want %d: %q", n, want, text)
		}
	})
}

// rfc9116 is a file as a reader understands it who knows the RFC and not us.
type rfc9116 struct {
	fields  map[string][]string
	expires time.Time
}

// bcp47 is the shape of a language tag: a language of two or three letters, then what narrows it (RFC 5646, section 2.1).
var bcp47 = regexp.MustCompile(`^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$`)

// readSecurityTxt is a signed file that breaks no rule of RFC 9116.
func readSecurityTxt(t *testing.T, file []byte, key string, now time.Time) rfc9116 {
	t.Helper()
	out, faults := lintSecurityTxt(t, file, key, now)
	for _, f := range faults {
		t.Error(f)
	}
	return out
}

// lintSecurityTxt reads a signed file by the rules of RFC 9116, sections 2.2 to 2.5 and the grammar of section 4.
func lintSecurityTxt(t *testing.T, file []byte, key string, now time.Time) (out rfc9116, faults []string) {
	t.Helper()
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	out = rfc9116{fields: map[string][]string{}}
	block, rest := clearsign.Decode(file)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 || !bytes.HasPrefix(file, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return out, append(faults, "no cleartext signature around all of it (section 2.3)")
	}
	ring, err := openpgp.ReadArmoredKeyRing(strings.NewReader(key))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := block.VerifySignature(ring, &packet.Config{Time: func() time.Time { return now }}); err != nil {
		fault("the signature: %v", err)
	}
	if !utf8.Valid(file) {
		fault("it is not UTF-8 (section 3)")
	}
	for line := range strings.Lines(string(block.Plaintext)) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, ": ")
		if !ok || strings.TrimSpace(value) == "" {
			fault("%q is no field (section 2.2)", line)
			continue
		}
		out.fields[name] = append(out.fields[name], value)
		switch name {
		case "Contact", "Canonical", "Policy", "Encryption", "Acknowledgments", "Hiring", "CSAF":
			u, err := url.Parse(value)
			if err != nil || !u.IsAbs() || u.Host+u.Opaque == "" {
				fault("%s: %q is no URI (section 2.5)", name, value)
			} else if u.Scheme == "http" {
				fault("%s: %q is a web address without TLS (section 2.5)", name, value)
			}
		case "Expires":
			if out.expires, err = time.Parse(time.RFC3339, value); err != nil {
				fault("Expires: %v (section 2.5.5)", err)
			}
		case "Preferred-Languages":
			for tag := range strings.SplitSeq(value, ",") {
				if !bcp47.MatchString(strings.TrimSpace(tag)) {
					fault("Preferred-Languages: %q is no tag of a language (section 2.5.8)", tag)
				}
			}
		default:
			fault("field %s is unknown", name)
		}
	}
	for _, once := range []string{"Expires", "Preferred-Languages"} {
		if len(out.fields[once]) > 1 {
			fault("%s stands twice", once)
		}
	}
	if len(out.fields["Contact"]) == 0 {
		fault("no contact (section 2.5.3)")
	}
	switch {
	case len(out.fields["Expires"]) == 0:
		fault("no end (section 2.5.5)")
	case !out.expires.After(now), out.expires.After(now.AddDate(1, 0, 0)):
		fault("it ends %s (section 2.5.5)", out.expires)
	}
	if len(out.fields["Canonical"]) == 0 {
		fault("a signed file says where it stands (section 2.5.2)")
	}
	return out, faults
}

// TestTheReaderOfSecurityTxtIsStrict: whoever checks our files finds what breaks each rule, and nothing else.
func TestTheReaderOfSecurityTxtIsStrict(t *testing.T) {
	h := one(t)
	k, err := h.pgp.Signer(t.Context(), maker, "system", "Acme Ltd")
	h.must(err)
	now := h.hand.Now()
	good := []string{"# ours", "Contact: mailto:psirt@example.com", "Contact: tel:+49-30-1", "Expires: " + now.Add(90*day).Format(time.RFC3339), "Canonical: https://example.com/.well-known/security.txt", "Preferred-Languages: en, de-AT"}
	change := func(old, new string) []string {
		out := slices.Clone(good)
		for i, line := range out {
			if strings.HasPrefix(line, old) {
				out[i] = new
			}
		}
		return out
	}
	for want, lines := range map[string][]string{
		"":                       good,
		"no contact":             slices.DeleteFunc(slices.Clone(good), func(l string) bool { return strings.HasPrefix(l, "Contact") }),
		"no end":                 change("Expires", "# no end"),
		"Expires stands twice":   append(slices.Clone(good), good[3]),
		"it ends":                change("Expires", "Expires: "+now.Add(-time.Second).Format(time.RFC3339)),
		"it ends ":               change("Expires", "Expires: "+now.AddDate(1, 0, 1).Format(time.RFC3339)),
		"Expires: ":              change("Expires", "Expires: next year"),
		"without TLS":            change("Contact: tel", "Contact: http://example.com/report"),
		"is no URI":              change("Contact: tel", "Contact: psirt@example.com"),
		"is no field":            change("# ours", "Contact:mailto:a@example.com"),
		"is no field ":           change("# ours", "some words"),
		"is unknown":             change("# ours", "Contacts: mailto:a@example.com"),
		"Preferred-Languages: ":  change("Preferred", "Preferred-Languages: english please"),
		"Preferred-Languages st": append(slices.Clone(good), good[5]),
		"says where it stands":   change("Canonical", "# nowhere"),
	} {
		body, err := h.pgp.ClearSign(k, []byte(strings.Join(lines, "\n")+"\n"))
		h.must(err)
		_, faults := lintSecurityTxt(t, body, k.Public, now)
		if all := strings.Join(faults, "\n"); want == "" && all != "" || !strings.Contains(all, strings.TrimSpace(want)) {
			t.Errorf("%q: found %q", want, all)
		}
	}
	body, err := h.pgp.ClearSign(k, []byte(strings.Join(good, "\n")+"\n"))
	h.must(err)
	for want, file := range map[string][]byte{
		"the signature":           bytes.Replace(body, []byte("psirt@"), []byte("mallory@"), 1),
		"no cleartext":            []byte(strings.Join(good, "\n")),
		"no cleartext signature ": append([]byte("Contact: mailto:mallory@example.com\n"), body...),
	} {
		if _, faults := lintSecurityTxt(t, file, k.Public, now); !strings.Contains(strings.Join(faults, "\n"), strings.TrimSpace(want)) {
			t.Errorf("%q: found %q", want, faults)
		}
	}
}
