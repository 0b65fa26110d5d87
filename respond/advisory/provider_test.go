// SPDX-License-Identifier: AGPL-3.0-only

package advisory

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/respond/disclosure"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/testpeers"
	"github.com/openthings-platform/openthings/vuln/csaf"
	"github.com/openthings-platform/openthings/vuln/record"
)

// front is the door for people: with a token "reader" somebody is signed in, else who says.
func (p *press) front(who context.Context) http.Handler {
	c := console.New(console.Config{Clock: p.hand, Log: slog.New(slog.NewTextHandler(p.t.Output(), nil)), Menu: []string{"Today", "Cases", "Advisories", "Law"}, Holds: tenant.Holds,
		SignIn: "/sign-in", Authenticate: func(r *http.Request) (context.Context, error) {
			switch {
			case r.Header.Get("Authorization") == "Bearer reader":
				return reader, nil
			case who != nil:
				return who, nil
			}
			return nil, problem.Unauthenticated("This needs you to be signed in.")
		}})
	p.Pages(c)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/security.txt", p.desk().SecurityTxt)
	mux.Handle("/", c)
	return p.DataHost(mux)
}

// desk is the room that answers for hosts.
func (p *press) desk() *disclosure.Service {
	if p.disclosure == nil {
		p.disclosure = disclosure.New(disclosure.Config{DB: p.db, PGP: p.pgp, URL: "https://maker.example", CSAF: p.Metadata,
			Maker: func(context.Context, string) (string, error) { return "Acme Ltd", nil }})
	}
	return p.disclosure
}

// shop publishes three advisories: for everybody, for the community and for the named.
func (p *press) shop() (white, green, red Advisory) {
	p.t.Helper()
	p.story()
	p.must(p.desk().SetContact(pso, disclosure.Contact{Contacts: []string{"https://maker.example/report"}, Hosts: []string{"maker.example"}}))
	_, err := p.SetPublisher(pso, Publisher{Contact: "psirt@maker.example", Authority: "Acme speaks for its products.", Prefix: "ACME"})
	p.must(err)
	white = p.draft()
	p.publish(white.ID, "")
	p.publish(white.ID, "The words of release 1.2.0")
	one := func(label csaf.TLPLabel) Advisory {
		words := p.words()
		words.TLP = label
		a, err := p.Draft(pso, p.product, cve, words)
		p.must(err)
		return p.publish(a.ID, "")
	}
	return white, one(csaf.TLPGreen), one(csaf.TLPRed)
}

// TestProviderIsWhatCSAFCheckerWants: csaf_checker walks through our provider over TLS, under a domain, with the metadata
// found in all three ways, and has nothing to say against it; neither for the public nor for somebody who signed in.
func TestProviderIsWhatCSAFCheckerWants(t *testing.T) {
	j := judges(t)
	p := onePress(t)
	p.shop()
	env := p.serve(p.front(nil))
	for who, headers := range map[string][]string{"the public": nil, "a reader": {"Authorization: Bearer reader"}} {
		report, err := j.Check(t.Context(), "maker.example", env, headers...)
		p.must(err)
		if report.Role != "csaf_trusted_provider" || !report.Passed || len(report.Requirements) != 20 {
			t.Errorf("%s: role %s, passed %v, %d requirements", who, report.Role, report.Passed, len(report.Requirements))
		}
		for _, s := range findings(report) {
			t.Errorf("%s: %s", who, s)
		}
	}
}

// TestCSAFCheckerWouldHaveSaidIt is the control of the test above: a byte that differs is found.
func TestCSAFCheckerWouldHaveSaidIt(t *testing.T) {
	j := judges(t)
	p := onePress(t)
	white, _, _ := p.shop()
	open, document, digest := p.front(nil), p.path(white, ""), p.path(white, ".sha512")
	for name, c := range map[string]struct {
		want string
		harm func(path string, body []byte) []byte
	}{
		"another document": {"19. Signatures", func(path string, b []byte) []byte {
			if path == document {
				return bytes.Replace(b, []byte("Overflow"), []byte("Overfl0w"), 1)
			}
			return b
		}},
		"another digest": {"18. Integrity", func(path string, b []byte) []byte {
			if path == digest {
				other := byte('0')
				if b[0] == other {
					other = '1'
				}
				return append([]byte{other}, b[1:]...)
			}
			return b
		}},
		"nothing in the feed": {"15. ROLIE feed", func(path string, b []byte) []byte {
			if strings.HasSuffix(path, "/feed-white.json") {
				return []byte(`{"feed":{"id":"x","title":"x","link":[],"category":[],"updated":"2026-01-01T00:00:00Z","entry":[]}}`)
			}
			return b
		}},
	} {
		report, err := j.Check(t.Context(), "maker.example", p.serve(altered(open, c.harm)))
		p.must(err)
		if got := strings.Join(findings(report), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%s: csaf_checker says %q", name, got)
		}
	}
}

// altered passes what next answers through harm.
func altered(next http.Handler, harm func(path string, body []byte) []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(harm(r.URL.Path, rec.Body.Bytes()))
	})
}

// findings are the warnings and errors of a report.
func findings(r testpeers.CSAFReport) (out []string) {
	for _, q := range r.Requirements {
		for _, m := range q.Messages {
			if m.Type > 0 {
				out = append(out, fmt.Sprintf("%d. %s: %s", q.Num, q.Description, m.Text))
			}
		}
	}
	return out
}

// serve opens the door over TLS on loopback, under the names maker.example and csaf.data.security.maker.example, and
// returns the environment in which other programs find it: a proxy leads there, and its certificate is trusted.
func (p *press) serve(h http.Handler) []string {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p.must(err)
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"maker.example", "csaf.data.security.maker.example"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	p.must(err)
	server := httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	p.t.Cleanup(server.Close)
	proxy := httptest.NewServer(tunnel(server.Listener.Addr().String()))
	p.t.Cleanup(proxy.Close)
	trusted := filepath.Join(p.t.TempDir(), "ca.pem")
	p.must(os.WriteFile(trusted, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return []string{"HTTPS_PROXY=" + proxy.URL, "https_proxy=" + proxy.URL, "NO_PROXY=", "no_proxy=", "SSL_CERT_FILE=" + trusted}
}

// tunnel is a proxy that leads to the one address, whatever the name.
func tunnel(to string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || !strings.HasSuffix(r.Host, "maker.example:443") {
			http.Error(w, "this proxy knows maker.example only", http.StatusForbidden)
			return
		}
		there, err := net.Dial("tcp", to)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		here, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			there.Close()
			return
		}
		done := make(chan struct{}, 2)
		pass := func(dst io.WriteCloser, src io.Reader) {
			_, _ = io.Copy(dst, src)
			done <- struct{}{}
		}
		go pass(there, buffered)
		go pass(here, there)
		<-done
		_ = errors.Join(here.Close(), there.Close())
	})
}

// TestWhatIsPublishedPassesBothJudges: the document of each label, read as a reader reads it.
func TestWhatIsPublishedPassesBothJudges(t *testing.T) {
	j := judges(t)
	p := onePress(t)
	white, green, red := p.shop()
	for _, a := range []Advisory{white, green, red} {
		path := p.path(a, "")
		b, code := p.get(pso, path)
		if code != http.StatusOK {
			t.Fatalf("%s: %d", path, code)
		}
		found, err := j.Judge(t.Context(), filepath.Base(path), b)
		p.must(err)
		for _, f := range found {
			t.Errorf("%s: %s: %s", path, f.Test, f.Says)
		}
	}
}

// TestWhoMayReadWhat walks through the tree as nobody, as a customer, as staff and as another manufacturer.
func TestWhoMayReadWhat(t *testing.T) {
	eachPress(t, func(p *press) {
		white, green, red := p.shop()
		drafted, err := p.Draft(pso, p.product, cve, Text{Title: "A secret of tomorrow"})
		p.must(err)
		readers := map[string]context.Context{"nobody": nil, "customer": reader, "staff": pso, "rival": rival}
		for _, suffix := range []string{"", ".sha256", ".sha512", ".asc", ".html"} {
			for who, codes := range map[string][3]int{"nobody": {200, 401, 401}, "customer": {200, 200, 404}, "staff": {200, 200, 200}, "rival": {200, 401, 401}} {
				for i, a := range []Advisory{white, green, red} {
					want := codes[i]
					if who == "customer" && i == 2 {
						want = 401 // as if there were nothing red at all
					}
					if _, code := p.get(readers[who], p.path(a, suffix)); code != want {
						t.Errorf("%s reads TLP:%s%s: %d, want %d", who, a.TLP, suffix, code, want)
					}
				}
			}
		}
		root := "/csaf/" + maker + "/"
		for who, wants := range map[string][2]string{"nobody": {"feed-white.json", "feed-green.json"}, "customer": {"feed-green.json", "feed-red.json"}} {
			for _, file := range []string{"provider-metadata.json", "service.json", ""} {
				b, code := p.get(readers[who], root+file)
				if code != 200 || !bytes.Contains(b, []byte(wants[0])) || bytes.Contains(b, []byte(wants[1])) {
					t.Errorf("%s reads %s: %d\n%s", who, file, code, b)
				}
			}
		}
		// A draft is nowhere, whoever reads.
		for _, file := range []string{"", "white/", "white/index.txt", "white/feed-white.json", "white/changes.csv", "white/category-white.json", fmt.Sprintf("white/%d/", p.hand.Now().Year())} {
			if b, code := p.get(pso, root+file); code != 200 || bytes.Contains(b, []byte(drafted.Title)) || bytes.Contains(b, []byte(strings.ToLower(drafted.Tracking))) {
				t.Errorf("%s: %d\n%s", file, code, b)
			}
		}
		for _, file := range []string{"white", "pink/", "white/1999/x.json", "openpgp/00.asc", "../", "white/feed-green.json", "green/feed-green.json/"} {
			if b, code := p.get(nil, root+file); code == 200 {
				t.Errorf("%q: %d\n%s", file, code, b)
			}
		}
		if _, code := p.get(nil, "/csaf/ten_rival/provider-metadata.json"); code != 404 {
			t.Errorf("a provider without anything published: %d", code)
		}
		b, _ := p.get(nil, "/.well-known/security.txt")
		if want := "CSAF: https://maker.example" + root + "provider-metadata.json\n"; !bytes.Contains(b, []byte(want)) {
			t.Errorf("security.txt says\n%s, not %s", b, want)
		}
	})
}

// TestThePublicPageSaysWhatTheDocumentSays, without a script.
func TestThePublicPageSaysWhatTheDocumentSays(t *testing.T) {
	eachPress(t, func(p *press) {
		p.story()
		words := p.words()
		words.Summary, words.Lang = "<script>alert(1)</script> & more", "de"
		a, err := p.Draft(pso, p.product, cve, words)
		p.must(err)
		p.publish(a.ID, "")
		b, code := p.get(nil, p.path(a, ".html"))
		if code != 200 || bytes.Contains(b, []byte("<script")) || bytes.Contains(b, []byte("style=")) {
			t.Fatalf("%d\n%s", code, b)
		}
		for _, want := range []string{"&lt;script&gt;alert(1)&lt;/script&gt; &amp; more", a.Tracking, cve, "Update to Street lamp 1.2.0 or later.", "Street lamp 1.0.0", "Affected", "Fixed",
			"Not affected", "the vulnerable code is not in it", "6.5", "CWE-787, Out-of-bounds Write", "Finn Finder", "https://upstream.example/1", `lang="de"`, "TLP:WHITE", ".json.asc"} {
			if !bytes.Contains(b, []byte(want)) {
				t.Errorf("the page does not say %q:\n%s", want, b)
			}
		}
	})
}

// TestCVEDraftIsARecord: what is handed to a CNA reads as the record that it drafts.
func TestCVEDraftIsARecord(t *testing.T) {
	eachPress(t, func(p *press) {
		p.story()
		a := p.draft()
		b, err := p.CVEDraft(pso, a.ID)
		p.must(err)
		r, err := record.Parse(b)
		p.must(err)
		if r.ID != cve {
			t.Errorf("read as %+v", r)
		}
		var said struct {
			DataType, DataVersion string
			CveMetadata           struct{ CveID, AssignerOrgID, State string }
			Containers            struct {
				CNA struct {
					ProviderMetadata struct{ OrgID string }
					Descriptions     []struct{ Lang, Value string }
					Affected         []struct {
						Vendor, Product, DefaultStatus string
						Versions                       []struct{ Version, Status, VersionType string }
					}
					References []struct{ URL string }
					Metrics    []map[string]json.RawMessage
				}
			}
		}
		p.must(json.Unmarshal(b, &said))
		cna := said.Containers.CNA
		if said.DataType != "CVE_RECORD" || said.CveMetadata.State != "PUBLISHED" || len(cna.Descriptions) == 0 || len(cna.References) < 2 || len(cna.Affected) != 1 || len(cna.Metrics) != 1 {
			t.Errorf("%s", b)
		}
		var got []string
		for _, v := range cna.Affected[0].Versions {
			got = append(got, v.Version+" "+v.Status)
		}
		if s := strings.Join(got, ", "); s != "0.8.0 unaffected, 1.0.0 affected, 1.1.0 affected, 1.2.0 unaffected" {
			t.Error(s)
		}
	})
}
