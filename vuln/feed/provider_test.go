// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/openthings-platform/openthings/problem"
)

// provider offers CSAF documents as one does: metadata, a ROLIE feed or a directory, digests and signatures.
type provider struct {
	*testing.T
	mu    sync.Mutex // guards what follows
	files map[string][]byte
	asked map[string]int
	at    string
	key   *openpgp.Entity
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	e, err := openpgp.NewEntity("ACME PSIRT", "", "psirt@acme.example", &packet.Config{Time: func() time.Time { return day0.Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{T: t, files: map[string][]byte{}, asked: map[string]int{}, key: e}
	p.at = serve(t, func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked[r.URL.Path]++
		if b, ok := p.files[r.URL.Path]; ok {
			w.Write(b)
			return
		}
		http.NotFound(w, r)
	})
	return p
}

func (p *provider) put(path string, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.files[path] = b; b == nil {
		delete(p.files, path)
	}
}

func (p *provider) fingerprint() string { return hex.EncodeToString(p.key.PrimaryKey.Fingerprint) }

// metadata says what is offered: how is "rolie" or "directory".
func (p *provider) metadata(role, how string) {
	p.Helper()
	lists := fmt.Sprintf(`{"rolie":{"feeds":[{"tlp_label":"WHITE","url":"%s/feed.json"},{"tlp_label":"AMBER","url":"%s/secret.json"}]}}`, p.at, p.at)
	if how == "directory" {
		lists = fmt.Sprintf(`{"directory_url":"%s/csaf/"}`, p.at)
	}
	var pub bytes.Buffer
	w, err := armor.Encode(&pub, openpgp.PublicKeyType, nil)
	if err == nil {
		err = p.key.Serialize(w)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		p.Fatal(err)
	}
	p.put("/key.asc", pub.Bytes())
	p.put("/provider-metadata.json", fmt.Appendf(nil, `{"role":"%s","distributions":[%s],"public_openpgp_keys":[{"fingerprint":"%s","url":"%s/key.asc"}]}`, role, lists, p.fingerprint(), p.at))
}

// document offers one with its digest and signature.
func (p *provider) document(path, doc string) {
	p.Helper()
	sum := sha512.Sum512([]byte(doc))
	var sig bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&sig, p.key, strings.NewReader(doc), &packet.Config{Time: func() time.Time { return day0 }}); err != nil {
		p.Fatal(err)
	}
	p.put(path, []byte(doc))
	p.put(path+".sha512", []byte(hex.EncodeToString(sum[:])+"  "+path+"\n"))
	p.put(path+".asc", sig.Bytes())
}

// rolie lists one document as changed at an instant.
func (p *provider) rolie(path, updated string) {
	p.put("/feed.json", fmt.Appendf(nil, `{"feed":{"entry":[{"updated":"%s","content":{"src":"%[2]s%[3]s"},"link":[{"rel":"self","href":"%[2]s%[3]s"},
		{"rel":"hash","href":"%[2]s%[3]s.sha512"},{"rel":"signature","href":"%[2]s%[3]s.asc"}]}]}}`, updated, p.at, path))
}

func TestProviderOfDocuments(t *testing.T) {
	for _, how := range []string{"rolie", "directory"} {
		p := newProvider(t)
		p.metadata("csaf_trusted_provider", how)
		list := func(at string) {
			p.rolie("/csaf/2026/acme-2026-1.json", at)
			p.put("/csaf/index.txt", []byte("2026/acme-2026-1.json\n"))
			p.put("/csaf/changes.csv", fmt.Appendf(nil, "\"2026/acme-2026-1.json\",\"%s\"\n", at))
		}
		p.document("/csaf/2026/acme-2026-1.json", advisory)
		list("2026-11-01T10:00:00Z")
		f, hand := fetcher(t)
		src := Source{Kind: KindCSAF, Location: p.at + "/provider-metadata.json", Keys: []string{strings.ToUpper(p.fingerprint())}}
		got, cursor, err := brought(t, f, src, Cursor{})
		if err != nil || len(got.CSAF) != 1 || got.CSAF[0].ID != "ACME-2026-1" {
			t.Fatalf("%s: %+v %v", how, got, err)
		}
		if p.asked["/secret.json"] > 0 {
			t.Errorf("%s: a feed that needs a login was asked for", how)
		}
		if got, _, err := brought(t, f, src, cursor); got != nil || err != nil || p.asked["/csaf/2026/acme-2026-1.json"] != 1 {
			t.Fatalf("%s: unchanged: %v", how, err)
		}
		// The list is silent about a change: found within a week, since it only saves reading.
		p.document("/csaf/2026/acme-2026-1.json", strings.Replace(advisory, `"version":"1"`, `"version":"2"`, 1))
		if got, _, err := brought(t, f, src, cursor); got != nil || err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		hand.Advance(readAllEvery)
		got, cursor, err = brought(t, f, src, cursor)
		if err != nil || got == nil || got.CSAF[0].Revision != "2" {
			t.Fatalf("%s: silent change: %v", how, err)
		}
		list("2026-11-20T10:00:00Z")
		p.document("/csaf/2026/acme-2026-1.json", strings.Replace(advisory, `"version":"1"`, `"version":"3"`, 1))
		if got, _, err = brought(t, f, src, cursor); err != nil || got == nil || got.CSAF[0].Revision != "3" {
			t.Fatalf("%s: told change: %v", how, err)
		}
	}
}

func TestDocumentsThatAreRefused(t *testing.T) {
	const path = "/csaf/2026/acme-2026-1.json"
	other, err := openpgp.NewEntity("Mallory", "", "m@example.com", &packet.Config{Time: func() time.Time { return day0.Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	foreign := func(doc string) []byte {
		var sig bytes.Buffer
		if err := openpgp.ArmoredDetachSign(&sig, other, strings.NewReader(doc), &packet.Config{Time: func() time.Time { return day0 }}); err != nil {
			t.Fatal(err)
		}
		return sig.Bytes()
	}
	for name, c := range map[string]struct {
		change func(p *provider)
		keys   []string
		rule   string
		kind   problem.Kind
	}{
		"another digest":          {func(p *provider) { p.put(path+".sha512", []byte(strings.Repeat("0", 128))) }, nil, RuleAltered, problem.KindForbidden},
		"a listed digest is away": {func(p *provider) { p.put(path+".sha512", nil) }, nil, "", problem.KindNotFound},
		"signed by somebody else": {func(p *provider) { p.put(path+".asc", foreign(advisory)) }, nil, RuleForeign, problem.KindForbidden},
		"the signature is away":   {func(p *provider) { p.put(path+".asc", nil) }, nil, "", problem.KindNotFound},
		"another key than pinned": {func(*provider) {}, []string{hex.EncodeToString(other.PrimaryKey.Fingerprint)}, RuleForeign, problem.KindForbidden},
		"a key of another print":  {func(p *provider) { p.key = other; p.put("/key.asc", armoured(t, other)) }, nil, RuleForeign, problem.KindForbidden},
		"no document":             {func(p *provider) { p.put(path, nil) }, nil, "", problem.KindNotFound},
		"metadata is no JSON":     {func(p *provider) { p.put("/provider-metadata.json", []byte("<html>")) }, nil, "", problem.KindInvalid},
		"nothing open":            {func(p *provider) { p.put("/provider-metadata.json", []byte(`{"distributions":[]}`)) }, nil, "", problem.KindInvalid},
		"a list of other machines": {func(p *provider) {
			p.put("/feed.json", []byte(`{"feed":{"entry":[{"content":{"src":"http://10.0.0.1/x.json"}}]}}`))
		}, nil, "", problem.KindInvalid},
	} {
		p := newProvider(t)
		p.metadata("csaf_provider", "rolie")
		p.document(path, advisory)
		p.rolie(path, "2026-11-01T10:00:00Z")
		c.change(p)
		f, _ := fetcher(t)
		got, _, err := brought(t, f, Source{Kind: KindCSAF, Location: p.at + "/provider-metadata.json", Keys: c.keys}, Cursor{})
		if got != nil || problem.Of(err).Kind != c.kind || problem.Of(err).Rule != c.rule {
			t.Errorf("%s: %v, want %s %s", name, err, c.kind, c.rule)
		}
	}
}

// A provider that calls itself trusted gives digests and signatures (CSAF 2.0, section 7.2.3); others may not.
func TestTrustedProviderMustSign(t *testing.T) {
	for _, role := range []string{"csaf_provider", "csaf_trusted_provider"} {
		p := newProvider(t)
		p.metadata(role, "directory")
		p.put("/csaf/2026/acme-2026-1.json", []byte(advisory))
		p.put("/csaf/index.txt", []byte("2026/acme-2026-1.json\n"))
		f, _ := fetcher(t)
		_, _, err := brought(t, f, Source{Kind: KindCSAF, Location: p.at + "/provider-metadata.json"}, Cursor{})
		if (err == nil) != (role == "csaf_provider") {
			t.Errorf("%s: %v", role, err)
		}
	}
}

func armoured(t *testing.T, e *openpgp.Entity) []byte {
	t.Helper()
	var pub bytes.Buffer
	w, err := armor.Encode(&pub, openpgp.PublicKeyType, nil)
	if err == nil {
		err = e.Serialize(w)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return pub.Bytes()
}

func TestKeysOfProviders(t *testing.T) {
	p := newProvider(t)
	good := []string{p.fingerprint(), "0x" + strings.ToUpper(p.fingerprint()), string(armoured(t, p.key))}
	if err := (Source{Kind: KindCSAF, Location: "https://acme.example/provider-metadata.json", Keys: good}).Check(); err != nil {
		t.Fatal(err)
	}
	var private bytes.Buffer
	w, err := armor.Encode(&private, openpgp.PrivateKeyType, nil)
	if err == nil {
		err = p.key.SerializePrivate(w, nil)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"abc", "openthings-feed+1a2b3c4d+AAAA", "-----BEGIN PGP PUBLIC KEY BLOCK-----\nx", private.String()} {
		if err := (Source{Kind: KindCSAF, Location: "https://acme.example/provider-metadata.json", Keys: []string{k}}).Check(); err == nil {
			t.Errorf("%.40q was taken", k)
		}
	}
}
