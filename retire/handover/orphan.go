// SPDX-License-Identifier: AGPL-3.0-only

package handover

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/product"
	"github.com/openthings-platform/openthings/respond/advisory"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/update"
	"github.com/openthings-platform/openthings/vuln/vex"
)

// orphanFormat is the first line under the platform's signature, and the format in the manifest.
const orphanFormat = "openthings orphan bundle 1"

// RuleUnverified names the refusal to hand out firmware that the maker's keys do not vouch for.
const RuleUnverified = "handover.unverified"

// Manifest is manifest.json of an orphan bundle.
type Manifest struct {
	Format   string            `json:"format"`
	Product  OrphanProduct     `json:"product"`
	AsOf     time.Time         `json:"as_of" doc:"When the newest thing in it was published"`
	Hardware []OrphanHardware  `json:"hardware"`
	Releases []OrphanRelease   `json:"releases"`
	Missing  []string          `json:"missing" doc:"What a reader might look for and does not find, in sentences"`
	Files    []File            `json:"files" doc:"Every file but this one and those of the signature"`
	LogKey   string            `json:"platform_key" doc:"Key of the signature under SHA256SUMS, as openthings verify takes it"`
	Support  []OrphanSupport   `json:"support"`
	About    map[string]string `json:"about" doc:"What the folders hold"`
}

// OrphanProduct says whose bundle it is.
type OrphanProduct struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Model string `json:"model"`
	Maker string `json:"manufacturer"`
}

// OrphanHardware is a hardware revision with the last release for it.
type OrphanHardware struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Release string `json:"release,omitempty" doc:"Version of the newest published release for it"`
}

// OrphanRelease is a release in the bundle.
type OrphanRelease struct {
	ID              string    `json:"id"`
	Version         string    `json:"version"`
	SecurityVersion int64     `json:"security_version"`
	Hardware        []string  `json:"hardware"`
	Published       time.Time `json:"published"`
	SignedUntil     time.Time `json:"signed_until" doc:"From then on devices take the signed list no more; what it says of the image stays true"`
	Image           string    `json:"image" doc:"SHA-256 of the image, as the maker signed it"`
	Folder          string    `json:"folder"`
	Root            string    `json:"root" doc:"The trust root whose keys signed the list"`
	Key             string    `json:"key" doc:"The key that signed the list, in PEM"`
	ECDSA           bool      `json:"-"`
}

// OrphanSupport is what was promised about a placement cohort, under the platform's signature.
type OrphanSupport struct {
	Cohort   string `json:"cohort"`
	Name     string `json:"name"`
	Revision string `json:"hardware"`
	product.Published
	Words string `json:"-"`
}

// orphan is a bundle before its first byte is written.
type orphan struct {
	Manifest
	roots    [][]byte
	keys     map[string][]byte // PEM by path
	parts    []orphanPart
	page     product.Page
	Advisory []advisory.Copy
}

// orphanPart is what belongs to a release.
type orphanPart struct {
	release   update.Release
	targets   []byte
	signature []byte // of the list, raw
	bill      string // name of the bill of materials in its folder
	vex       []byte
}

// orphan collects what the bundle of a product holds and verifies its firmware; with a revision, of that hardware only.
func (s *Service) orphan(ctx context.Context, tenant, id, revision string) (o *orphan, err error) {
	p, err := s.cfg.Products.Get(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	o = &orphan{keys: map[string][]byte{}, Manifest: Manifest{Format: orphanFormat, Product: OrphanProduct{ID: p.ID, Name: p.Name, Model: p.Model}, LogKey: s.cfg.LogKey(),
		Hardware: []OrphanHardware{}, Releases: []OrphanRelease{}, Missing: []string{}, Support: []OrphanSupport{}, About: about}}
	if o.Product.Maker, err = s.cfg.Maker(ctx, tenant); err != nil {
		return nil, err
	}
	if err := s.hardware(ctx, tenant, o, revision); err != nil {
		return nil, err
	}
	if err := s.words(ctx, tenant, o); err != nil {
		return nil, err
	}
	if len(o.parts) == 0 && o.page.Version == 0 && len(o.Support) == 0 {
		return nil, problem.NotFound("Nothing of this product was published: there is nothing to hand over.").Hint("Publish a release, the user information or its support first.")
	}
	return o, nil
}

// hardware adds the last release of each hardware revision.
func (s *Service) hardware(ctx context.Context, tenant string, o *orphan, revision string) error {
	vs, err := s.cfg.Products.Revisions(ctx, tenant, o.Product.ID)
	if err != nil {
		return err
	}
	if revision != "" {
		if vs = slices.DeleteFunc(vs, func(v product.Revision) bool { return v.ID != revision }); len(vs) == 0 {
			return problem.NotFound("The product has no such hardware revision.").At("query.revision")
		}
	}
	roots, err := s.cfg.Update.TrustRoots(ctx, tenant)
	if err != nil {
		return err
	}
	for _, r := range roots {
		o.roots = append(o.roots, r)
	}
	releases, err := s.cfg.Update.List(ctx, tenant, o.Product.ID)
	if err != nil {
		return err
	}
	for _, v := range vs {
		h := OrphanHardware{ID: v.ID, Name: v.Name}
		if r, ok := newest(releases, v.Name); ok {
			h.Release = r.Version
			if !slices.ContainsFunc(o.parts, func(p orphanPart) bool { return p.release.ID == r.ID }) {
				if err := s.part(ctx, o, r); err != nil {
					return err
				}
			}
		} else {
			o.Missing = append(o.Missing, "No release was published for hardware "+v.Name+".")
		}
		o.Hardware = append(o.Hardware, h)
	}
	return nil
}

// newest is the published release for the hardware that devices would end with.
func newest(releases []update.Release, hw string) (last update.Release, ok bool) {
	for _, r := range releases {
		if r.State != update.Published || !slices.Contains(r.HW, hw) {
			continue
		}
		if c := cmp.Compare(r.SecurityVersion, last.SecurityVersion); !ok || c > 0 || c == 0 && r.Published.After(last.Published) {
			last, ok = r, true
		}
	}
	return last, ok
}

// part adds a release: the signed list that names it with the root that vouches for the list, the bill and the statements.
func (s *Service) part(ctx context.Context, o *orphan, r update.Release) error {
	p := orphanPart{release: r}
	var err error
	if p.targets, err = s.cfg.Update.SignedTargets(ctx, r); err != nil {
		return err
	}
	out := OrphanRelease{ID: r.ID, Version: r.Version, SecurityVersion: r.SecurityVersion, Hardware: r.HW, Published: r.Published.UTC(), Image: strings.TrimPrefix(r.Image, "sha256:"),
		Folder: "firmware/" + strings.ReplaceAll(r.Version, " ", "_")}
	if slices.ContainsFunc(o.Releases, func(x OrphanRelease) bool { return x.Folder == out.Folder }) {
		out.Folder = "firmware/" + r.ID
	}
	v, err := vouch(o.roots, p.targets, r)
	if err != nil {
		return err
	}
	p.signature = v.signature
	out.Root, out.Key, out.SignedUntil, out.ECDSA = rootPath(v.root), "trust/keys/"+v.key.ID[:16]+".pem", v.until, v.key.Type == "ecdsa"
	if o.keys[out.Key], err = publicPEM(v.key.Public); err != nil {
		return err
	}
	rec, f, err := s.cfg.SBOM.Original(ctx, r.Tenant, r.ID)
	switch {
	case problem.Is(err, problem.KindNotFound):
		o.Missing = append(o.Missing, "There is no bill of materials of release "+r.Version+".")
	case err != nil:
		return err
	default:
		p.bill = billName(string(rec.Format), f)
		f.Close() //nolint:errcheck // it was only looked at
	}
	p.vex, err = s.cfg.Vuln.ReleaseVEX(ctx, r.Tenant, r.ID, vex.OpenVEX)
	if problem.Is(err, problem.KindNotFound) {
		o.Missing = append(o.Missing, "Nothing was stated about vulnerabilities of release "+r.Version+".")
	} else if err != nil {
		return err
	}
	o.AsOf = later(o.AsOf, r.Published)
	o.parts, o.Releases = append(o.parts, p), append(o.Releases, out)
	return nil
}

// words adds what was published in words: user information, support and advisories.
func (s *Service) words(ctx context.Context, tenant string, o *orphan) (err error) {
	if o.page, err = s.cfg.Products.Page(ctx, tenant, o.Product.ID); err != nil {
		return err
	}
	if o.page.Version == 0 {
		o.Missing = append(o.Missing, "The user information (CRA Annex II) was not published.")
	}
	o.AsOf = later(o.AsOf, o.page.Published)
	cs, err := s.cfg.Products.Cohorts(ctx, tenant, o.Product.ID)
	if err != nil {
		return err
	}
	for _, c := range cs {
		at := slices.IndexFunc(o.Hardware, func(h OrphanHardware) bool { return h.ID == c.Revision })
		if c.Public == nil || at < 0 {
			continue
		}
		o.Support = append(o.Support, OrphanSupport{Cohort: c.ID, Name: c.Name, Revision: o.Hardware[at].Name, Published: *c.Public, Words: c.Public.SupportEnd.Words()})
		o.AsOf = later(o.AsOf, c.Public.Published)
	}
	if len(o.Support) == 0 {
		o.Missing = append(o.Missing, "No end of support was published.")
	}
	if o.Advisory, err = s.cfg.Advisories.Copies(ctx, tenant, o.Product.ID); err != nil && !problem.Is(err, problem.KindNotFound) {
		return err
	}
	for _, a := range o.Advisory {
		o.AsOf = later(o.AsOf, a.At)
	}
	if len(o.Advisory) == 0 {
		o.Missing = append(o.Missing, "No security advisory was published for everybody.")
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if b = b.UTC(); b.After(a) {
		return b
	}
	return a
}

func rootPath(n int) string { return fmt.Sprintf("trust/root-%d.json", n+1) }

// billName names a bill of materials by what it is.
func billName(format string, f io.Reader) string {
	first, _ := bufio.NewReader(f).Peek(1) // an empty one is no JSON either
	short := map[string]string{"CycloneDX": "cdx", "SPDX": "spdx"}[format]
	switch {
	case bytes.Equal(first, []byte("<")):
		return "sbom." + short + ".xml"
	case bytes.Equal(first, []byte("{")):
		return "sbom." + short + ".json"
	}
	return "sbom." + short
}

//go:embed readme.md
var readmeText string

var readme = template.Must(template.New("README.md").Funcs(template.FuncMap{
	"instant": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"day":     func(t time.Time) string { return t.UTC().Format(time.DateOnly) },
	"first":   func(list []string) string { return list[0] },
}).Parse(readmeText))

// about says what the folders of a bundle hold.
var about = map[string]string{
	"firmware":    "The last published release of each hardware revision: image, signed list, bill of materials, statements about vulnerabilities (OpenVEX)",
	"trust":       "The maker's update trust roots (TUF) and the keys that signed the lists",
	"advisories":  "Security advisories (CSAF) with their OpenPGP signatures and keys",
	"information": "The user information (CRA Annex II) as published",
}

// write writes the bundle and puts into the log that it was made.
func (s *Service) writeOrphan(ctx context.Context, tenant, actor string, o *orphan, w io.Writer) error {
	a := newArchive(w, o.AsOf)
	if err := s.fill(ctx, tenant, o, a); err != nil {
		return err
	}
	o.Files = a.files
	if err := a.addJSON("manifest.json", "This bundle, for programs", o.Manifest); err != nil {
		return err
	}
	text := a.sums(orphanFormat)
	note, err := s.cfg.Sign(text)
	if err != nil {
		return err
	}
	signature, key, err := fromNote(note, o.LogKey)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		path  string
		bytes []byte
	}{{"SHA256SUMS", []byte(text)}, {"SHA256SUMS.sig", signature}, {"SHA256SUMS.note", note}, {"platform.pem", key}} {
		if err := a.add(f.path, "", f.bytes); err != nil {
			return err
		}
	}
	versions := []string{}
	for _, r := range o.Releases {
		versions = append(versions, r.Version)
	}
	err = s.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		return audit.Append(tx, audit.Entry{Tenant: tenant, Actor: actor, Kind: "product.orphaned", Subject: o.Product.ID, Data: map[string]any{"as_of": o.AsOf, "releases": versions, "sums": sumOf([]byte(text))}})
	})
	return errors.Join(err, a.close())
}

// fill writes all that the sums are about, but the manifest.
func (s *Service) fill(ctx context.Context, tenant string, o *orphan, a *archive) error {
	var b bytes.Buffer
	if err := readme.Execute(&b, o); err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	if err := a.add("README.md", "What this is and how to verify it", b.Bytes()); err != nil {
		return err
	}
	for n, doc := range o.roots {
		if err := a.add(rootPath(n), "Update trust root of the maker (TUF)", doc); err != nil {
			return err
		}
	}
	for _, path := range sortedKeys(o.keys) {
		if err := a.add(path, "Public key of the maker that signs releases", o.keys[path]); err != nil {
			return err
		}
	}
	for n, p := range o.parts {
		if err := s.fillRelease(ctx, o.Releases[n], p, a); err != nil {
			return err
		}
	}
	for _, lang := range product.Languages {
		if items := o.page.Texts[lang]; len(items) > 0 {
			if err := a.add("information/"+lang+".md", "User information, CRA Annex II", information(o, lang)); err != nil {
				return err
			}
		}
	}
	keys := map[string][]byte{}
	for _, c := range o.Advisory {
		if err := a.add("advisories/"+c.File, c.Title, c.Document); err != nil {
			return err
		}
		if err := a.add("advisories/"+c.File+".asc", "OpenPGP signature of "+c.File, []byte(c.Signature)); err != nil {
			return err
		}
		keys["advisories/openpgp/"+c.Key.Fingerprint+".asc"] = []byte(c.Key.Public)
	}
	for _, path := range sortedKeys(keys) {
		if err := a.add(path, "OpenPGP key that signs advisories", keys[path]); err != nil {
			return err
		}
	}
	return nil
}

// fillRelease writes what belongs to a release; the image goes through, however large.
func (s *Service) fillRelease(ctx context.Context, r OrphanRelease, p orphanPart, a *archive) error {
	image, err := s.cfg.Blobs.Open(ctx, p.release.Image)
	if err != nil {
		return err
	}
	defer image.Close()
	if err := a.from(r.Folder+"/image.bin", "Image of release "+r.Version, func(w io.Writer) error { _, err := io.Copy(w, image); return err }); err != nil {
		return err
	}
	if got := a.files[len(a.files)-1]; got.SHA256 != r.Image {
		return fmt.Errorf("handover: the image of %s is not the one that was signed for", r.ID)
	}
	if err := a.add(r.Folder+"/targets.json", "The maker's signed list that names the image (TUF)", p.targets); err != nil {
		return err
	}
	if err := a.add(r.Folder+"/targets.sig", "The signature of that list by "+r.Key+", over the canonical JSON of its member signed", p.signature); err != nil {
		return err
	}
	if p.bill != "" {
		_, f, err := s.cfg.SBOM.Original(ctx, p.release.Tenant, r.ID)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := a.from(r.Folder+"/"+p.bill, "Bill of materials of release "+r.Version, func(w io.Writer) error { _, err := io.Copy(w, f); return err }); err != nil {
			return err
		}
	}
	if p.vex != nil {
		return a.add(r.Folder+"/vex.openvex.json", "What was decided about vulnerabilities of release "+r.Version+" (OpenVEX)", p.vex)
	}
	return nil
}

// information is the user information in a language, as text.
func information(o *orphan, lang string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n\n%s. User information as published on %s, version %d.\n", o.Product.Name, o.Product.Maker, o.page.Published.UTC().Format(time.DateOnly), o.page.Version)
	for _, i := range o.page.Texts[lang] {
		fmt.Fprintf(&b, "\n## %s %s\n\n%s\n", i.Number(), i.Asks, i.Text)
	}
	return b.Bytes()
}
