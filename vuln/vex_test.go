// SPDX-License-Identifier: AGPL-3.0-only

package vuln

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/vuln/vex"
)

func all(string) bool { return true }

// openVEX is a document of others with one statement.
func openVEX(id string, version int, at time.Time, statement string) []byte {
	return fmt.Appendf(nil, `{"@context":"https://openvex.dev/ns/v0.2.0","@id":%q,"author":"Example","timestamp":%q,"version":%d,"statements":[%s]}`,
		id, at.Format(time.RFC3339), version, statement)
}

// says is a statement on CVE-2023-44487.
func says(product, status, more string) string {
	return fmt.Sprintf(`{"vulnerability":{"name":"CVE-2023-44487"},"products":[%s],"status":%q%s}`, product, status, more)
}

func (h *house) vex(origin vex.Origin, doc []byte) Taken {
	h.Helper()
	d, err := vex.Parse(doc)
	h.must(err)
	t, err := h.vuln.TakeVEX(h.Context(), "ten_a", "per_1", origin, d)
	h.must(err)
	return t
}

const unreached = `,"justification":"vulnerable_code_not_in_execute_path","status_notes":"HTTP/2 is off."`

func TestImportsPropose(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0", "golang.org/x/text@v0.9.0")
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		h.install("ten_a", "prd_lamp", "rel_1", "dev_1")
		doc := openVEX("https://vendor.example/1", 1, day0, says(`{"@id":"pkg:golang/golang.org/x/net@v0.10.0"}`, "not_affected", unreached))
		first := h.vex(vex.Vendor, doc)
		if again := h.vex(vex.Vendor, doc); again.ID != first.ID {
			t.Errorf("the same document again became %s beside %s", again.ID, first.ID)
		}
		h.want("it is proposed", h.status("rel_1", "GO-1"), "undecided, vendor not_affected")
		h.want("and changes nothing", h.affected("ten_a", "GO-1", time.Time{}), "1: rel_1=1")

		h.vex(vex.Distribution, openVEX("https://distribution.example/1", 1, day0.Add(time.Hour), says(`{"@id":"pkg:golang/golang.org/x/net"}`, "affected", `,"action_statement":"Update."`)))
		h.vex(vex.Own, openVEX("https://own.example/1", 1, day0.Add(-time.Hour), says(`{"@id":"pkg:golang/golang.org/x/net@v0.10.0"}`, "under_investigation", "")))
		h.want("by precedence", h.status("rel_1", "GO-1"), "undecided, own under_investigation, vendor not_affected, distribution affected")

		list, err := h.vuln.Proposals(h.Context(), "ten_a", "GO-1", all)
		h.must(err)
		made := h.decide(Deciding{Product: "prd_lamp", Origin: list[1].Origin})
		if made.Status != NotAffected || made.Justification != "vulnerable_code_not_in_execute_path" || made.Origin != list[1].Origin ||
			!strings.HasPrefix(made.Evidence, "HTTP/2 is off.\n\nStatement of Example (vendor) of 2026-11-01 in https://vendor.example/1 1, sha256:") {
			t.Errorf("taken over %+v", made)
		}
		h.want("accepting it is a decision", h.affected("ten_a", "GO-1", time.Time{}), "0:")
		h.want("the others are conflicts", h.status("rel_1", "GO-1"), "not_affected, own under_investigation against not_affected, distribution affected against not_affected")
		h.vex(vex.Vendor, openVEX("https://vendor.example/2", 1, day0.Add(2*time.Hour), says(`{"@id":"pkg:golang/golang.org/x/net@v0.10.0"}`, "affected", `,"action_statement":"x"`)))
		h.want("a later import does not change it", h.affected("ten_a", "GO-1", time.Time{}), "0:")

		if _, err := h.vuln.Decide(h.Context(), "ten_a", "per_1", "GO-1", Deciding{Product: "prd_lamp", Origin: "vst_none"}); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("a statement that is not there was taken over: %v", err)
		}
		if _, err := h.vuln.Proposals(h.Context(), "ten_b", "GO-1", all); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("another tenant: %v", err)
		}
		if hidden, err := h.vuln.Proposals(h.Context(), "ten_a", "GO-1", func(string) bool { return false }); err != nil || len(hidden) != 0 {
			t.Errorf("products that may not be seen: %d proposals, %v", len(hidden), err)
		}
	})
}

// TestWhomAStatementFits walks the ways to name a product, and what must not be taken for ours.
func TestWhomAStatementFits(t *testing.T) {
	each(t, func(h *house) {
		image := "sha256:" + strings.Repeat("ab", 32)
		h.images = map[string]string{"rel_1": image}
		h.attach("ten_a", "rel_1", "prd_lamp", "1.0.0", []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","serialNumber":"urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79",
			"metadata":{"component":{"type":"firmware","name":"lamp","version":"1.0.0","purl":"pkg:generic/acme/lamp@1.0.0"}},"components":[
			{"type":"library","name":"golang.org/x/net","version":"v0.10.0","purl":"pkg:golang/golang.org/x/net@v0.10.0"},
			{"type":"library","name":"golang.org/x/text","version":"v0.9.0","purl":"pkg:golang/golang.org/x/text@v0.9.0"}]}`))
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		inside := `,"subcomponents":[{"@id":"pkg:golang/golang.org/x/net@v0.10.0"}]`
		for i, c := range []struct {
			product string
			fits    bool
		}{
			{`{"@id":"urn:openthings:release:rel_1"}`, true},
			{`{"@id":"urn:openthings:release:rel_1"` + inside + `}`, true},
			{`{"@id":"urn:openthings:release:rel_1","subcomponents":[{"@id":"pkg:golang/golang.org/x/text@v0.9.0"}]}`, false},
			{`{"@id":"urn:openthings:release:rel_2"}`, false},
			{`{"hashes":{"sha-256":"` + image[7:] + `"}}`, true},
			{`{"hashes":{"sha-256":"` + image[7:] + `"}` + inside + `}`, true},
			{`{"hashes":{"sha-256":"` + strings.Repeat("cd", 32) + `"}}`, false},
			{`{"@id":"pkg:generic/acme/lamp@1.0.0"}`, true},
			{`{"@id":"pkg:generic/acme/lamp"` + inside + `}`, true},
			{`{"@id":"pkg:generic/acme/lamp@2.0.0"` + inside + `}`, false},
			{`{"@id":"urn:cdx:3e671687-395b-41f5-a30f-a58921a69b79/1"` + inside + `}`, true},
			{`{"@id":"urn:cdx:4e671687-395b-41f5-a30f-a58921a69b79/1"` + inside + `}`, false},
			{`{"@id":"urn:cdx:3e671687-395b-41f5-a30f-a58921a69b79/1#another"}`, false},
			{`{"@id":"pkg:golang/golang.org/x/net"}`, true},
			{`{"@id":"pkg:golang/golang.org/x/net@0.10.0"}`, true},
			{`{"@id":"pkg:golang/golang.org/x/net@v0.9.0"}`, false},
			{`{"@id":"pkg:npm/golang.org/x/net@v0.10.0"}`, false},
			{`{"@id":"pkg:golang/golang.org/x/text@v0.9.0"` + inside + `}`, true}, // in a component that we ship
			{`{"@id":"pkg:generic/another-product@1"` + inside + `}`, false},      // in a product of theirs: says nothing of ours
			{`{"@id":"pkg:golang/golang.org/x/text@v0.9.0"}`, false},              // another component
			{`{"@id":"https://vendor.example/whatever"}`, false},
		} {
			doc := openVEX(fmt.Sprint("https://vendor.example/", i), 1, day0, says(c.product, "affected", `,"action_statement":"x"`))
			taken := h.vex(vex.Vendor, doc)
			list, err := h.vuln.Proposals(h.Context(), "ten_a", "GO-1", all)
			h.must(err)
			fits := false
			for _, p := range list {
				fits = fits || p.Document.ID == taken.ID
			}
			if fits != c.fits {
				t.Errorf("%s: fits %v, want %v", c.product, fits, c.fits)
			}
		}
	})
}

// TestAStatementWaitsForItsProduct: what names a product that nobody has yet is kept, and offered when it appears.
func TestAStatementWaitsForItsProduct(t *testing.T) {
	each(t, func(h *house) {
		h.vex(vex.Vendor, openVEX("https://vendor.example/1", 1, day0, says(`{"@id":"urn:openthings:release:rel_9"}`, "not_affected", unreached)))
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		h.release("ten_a", "rel_8", "prd_lamp", "0.9.0", "golang.org/x/net@v0.10.0")
		h.want("another release", h.status("rel_8", "GO-1"), "undecided")
		h.release("ten_a", "rel_9", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		h.want("the release that it names", h.status("rel_9", "GO-1"), "undecided, vendor not_affected")
	})
}

func TestANewerDocumentReplacesTheOlder(t *testing.T) {
	each(t, func(h *house) {
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""))
		h.must(err)
		net := `{"@id":"pkg:golang/golang.org/x/net"}`
		h.vex(vex.Vendor, openVEX("https://vendor.example/1", 2, day0.Add(time.Hour), says(net, "not_affected", unreached)))
		if old := h.vex(vex.Vendor, openVEX("https://vendor.example/1", 1, day0, says(net, "under_investigation", ""))); old.Current {
			t.Error("the older version, imported later, counts")
		}
		h.want("the newest", h.status("rel_1", "GO-1"), "undecided, vendor not_affected")
		h.vex(vex.Vendor, openVEX("https://vendor.example/1", 3, day0.Add(2*time.Hour), says(net, "affected", `,"action_statement":"x"`)))
		h.want("replaced", h.status("rel_1", "GO-1"), "undecided, vendor affected")
		list, err := h.vuln.TakenVEX(h.Context(), "ten_a", "", 10)
		h.must(err)
		if len(list) != 3 {
			t.Errorf("%d documents: the old ones stay", len(list))
		}
	})
}

// TestExport writes the same decisions in three formats and reads them back equal, for a release and for the line.
func TestExport(t *testing.T) {
	each(t, func(h *house) {
		h.images = map[string]string{"rel_1": "sha256:" + strings.Repeat("ab", 32), "rel_2": "sha256:" + strings.Repeat("cd", 32)}
		h.release("ten_a", "rel_1", "prd_lamp", "1.0.0", "golang.org/x/net@v0.10.0")
		h.release("ten_a", "rel_2", "prd_lamp", "1.1.0", "golang.org/x/net@v0.10.0")
		_, err := h.feed("ten_a", xnet("GO-1", "CVE-2023-44487", "0.17.0", ""), xnet("GO-2", "CVE-2026-2", "0.12.0", ""))
		h.must(err)
		if _, err := h.vuln.ReleaseVEX(h.Context(), "ten_a", "rel_1", vex.OpenVEX); !problem.Is(err, problem.KindNotFound) {
			t.Errorf("nothing was decided, and it said so with %v", err)
		}
		h.decide(harmless)
		decided := h.clock.Now()
		h.clock.Advance(time.Hour)
		h.release("ten_a", "rel_3", "prd_lamp", "1.2.0", "golang.org/x/net@v0.17.0")
		closed := h.clock.Now()

		export := func(release, version string) []vex.Statement {
			t.Helper()
			var first []vex.Statement
			for _, f := range []vex.Format{vex.OpenVEX, vex.CycloneDX, vex.CSAF} {
				write := func() ([]byte, error) { return h.vuln.ProductVEX(h.Context(), "ten_a", "prd_lamp", f) }
				if release != "" {
					write = func() ([]byte, error) { return h.vuln.ReleaseVEX(h.Context(), "ten_a", release, f) }
				}
				b, err := write()
				h.must(err)
				again, err := write()
				h.must(err)
				if !bytes.Equal(b, again) {
					t.Errorf("%s: asked twice, not the same bytes", f)
				}
				d, err := vex.Parse(b)
				h.must(err)
				if d.Author != "Lamp Works" || d.Version != version {
					t.Errorf("%s: %s of %s, want version %s", f, d.Version, d.Author, version)
				}
				if first == nil {
					first = d.Statements
				} else if diff := cmp.Diff(first, d.Statements); diff != "" {
					t.Errorf("%s says something else: %s", f, diff)
				}
			}
			return first
		}
		product := func(release, version, net string) vex.Product {
			return vex.Product{Ref: vex.Ref{ID: vex.ReleaseRef(release), PURL: "pkg:generic/prd_lamp@" + version, Digest: h.images[release]},
				Components: []vex.Ref{{PURL: "pkg:golang/golang.org/x/net@" + net}}}
		}
		not := vex.Statement{Idents: []string{"CVE-2023-44487", "GO-1"}, Summary: "a fault", Status: NotAffected, Justification: vex.CodeNotInPath, Detail: harmless.Evidence, At: decided}
		not.Products = []vex.Product{product("rel_1", "1.0.0", "v0.10.0")}
		if diff := cmp.Diff([]vex.Statement{not}, export("rel_1", "1")); diff != "" {
			t.Errorf("of one release: %s", diff)
		}
		not.Products = append(not.Products, product("rel_2", "1.1.0", "v0.10.0"))
		fixed := vex.Statement{Idents: not.Idents, Summary: "a fault", Status: Fixed, Detail: "It carries golang.org/x/net v0.17.0; the fault is fixed since 0.17.0.", At: closed,
			Products: []vex.Product{product("rel_3", "1.2.0", "v0.17.0")}}
		other := vex.Statement{Idents: []string{"CVE-2026-2", "GO-2"}, Summary: "a fault", Status: Fixed, At: closed,
			Detail: "It carries golang.org/x/net v0.17.0; the fault is fixed since 0.12.0.", Products: fixed.Products}
		if diff := cmp.Diff([]vex.Statement{not, fixed, other}, export("", "1")); diff != "" {
			t.Errorf("of the line: %s", diff)
		}

		h.clock.Advance(time.Hour)
		h.decide(Deciding{Product: "prd_lamp", Status: DecidedAffected, Action: "Update to 1.2.0."})
		said := export("rel_1", "2")
		if len(said) != 1 || said[0].Status != DecidedAffected || said[0].Action != "Update to 1.2.0." {
			t.Errorf("after another decision: %+v", said)
		}
		export("rel_3", "1")
	})
}

var lampWorks = func(context.Context, string) (Publisher, error) {
	return Publisher{Name: "Lamp Works", Namespace: "https://lamp.example"}, nil
}
