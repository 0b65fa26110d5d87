// SPDX-License-Identifier: AGPL-3.0-only

package respond

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/tenant"
	"github.com/openthings-platform/openthings/vuln/csaf"
)

// The provider (CSAF 2.0 section 7, role "trusted provider") is a tree of files below /csaf/TENANT/:
//
//	provider-metadata.json, service.json, openpgp/FINGERPRINT.asc
//	LABEL/feed-LABEL.json, category-LABEL.json, index.txt, changes.csv
//	LABEL/YEAR/NAME.json with .sha256, .sha512, .asc and the page .html
//
// Folders answer with a page. The branch "white" is for everybody; the others need a signed-in caller with advisory.read
// in the tenant, "red" one who holds it for the product. What a caller may not read is not listed for it either.
//
// For the host that a tenant answers for, the tree is also below /.well-known/csaf/ and its metadata at the root of
// csaf.data.security.HOST.

// root is where the provider's tree begins.
func (p Publisher) root() string { return p.URL + "/csaf/" + p.tenant + "/" }

// branch is where the advisories with the label are.
func (p Publisher) branch(label csaf.TLPLabel) string {
	return p.root() + strings.ToLower(string(label)) + "/"
}

// at is the address of a published document, or of what lies beside it with the suffix; ".html" replaces its ending.
func (p Publisher) at(label csaf.TLPLabel, initial time.Time, tracking, suffix string) string {
	name := csaf.Filename(tracking)
	if suffix == ".html" {
		name, suffix = strings.TrimSuffix(name, ".json"), ".html"
	}
	return p.branch(label) + strconv.Itoa(initial.UTC().Year()) + "/" + name + suffix
}

// address is at for the revision that is being written.
func (p Publisher) address(a Advisory, initial time.Time, suffix string) string {
	return p.at(a.TLP, initial, a.Tracking, suffix)
}

// shelf is what a caller may read of a tenant's advisories.
type shelf struct {
	Publisher
	updated time.Time // of the publisher's own data
	keys    []signingKey
	read    map[csaf.TLPLabel][]entry // nil for a label that is closed to the caller
}

// shelf collects what the caller may read. Without a published advisory in the open branch there is no provider yet.
func (s *Service) shelf(ctx context.Context, t string) (sh shelf, err error) {
	reader, _ := tenant.ActorFrom(ctx)
	sh.read = map[csaf.TLPLabel][]entry{}
	var n int64
	if err := s.cfg.DB.QueryRow(ctx, `SELECT count(*) FROM respond_advisory WHERE tenant = $1 AND revision > 0`, t).Scan(&n); err != nil {
		return sh, err
	}
	if n == 0 {
		return sh, problem.NotFound("Nothing was published here.")
	}
	if sh.Publisher, sh.updated, err = s.publisher(ctx, t); err != nil {
		return sh, err
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		if sh.keys, err = signingKeys(tx, t); err != nil {
			return err
		}
		for _, label := range circles {
			if label != csaf.TLPWhite && (reader.Tenant != t || !tenant.Anywhere(reader, tenant.AdvisoryRead)) {
				continue
			}
			if err := sh.add(tx, t, label, reader); err != nil {
				return err
			}
		}
		return nil
	})
	return sh, err
}

func (sh *shelf) add(tx *store.Tx, t string, label csaf.TLPLabel, reader tenant.Actor) error {
	es, err := published(tx, t, label)
	if label == csaf.TLPRed {
		es = slices.DeleteFunc(es, func(e entry) bool {
			return !tenant.Can(reader, tenant.AdvisoryRead, tenant.Thing{Tenant: t, Product: e.product})
		})
	}
	if label == csaf.TLPWhite || len(es) > 0 {
		sh.read[label] = append([]entry{}, es...)
	}
	return err
}

// labels are the branches that are open to the caller, the widest first.
func (sh *shelf) labels() (out []csaf.TLPLabel) {
	for _, l := range circles {
		if sh.read[l] != nil {
			out = append(out, l)
		}
	}
	return out
}

// changed is when something on the shelf changed last.
func (sh *shelf) changed(labels ...csaf.TLPLabel) time.Time {
	at := sh.updated
	for _, k := range sh.keys {
		at = later(at, k.Made)
	}
	for _, l := range labels {
		for _, e := range sh.read[l] {
			at = later(at, e.At)
		}
	}
	return at.UTC().Truncate(time.Second)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

type object = map[string]any

// metadata is provider-metadata.json (section 7.1.7).
func (sh *shelf) metadata() object {
	var feeds, keys []object
	var open []string
	distributions := []object{}
	for _, l := range sh.labels() {
		feeds = append(feeds, object{"summary": fmt.Sprintf("Advisories of %s labelled TLP:%s", sh.Name, l), "tlp_label": l, "url": sh.feed(l)})
		open = append(open, sh.branch(l)+"category-"+strings.ToLower(string(l))+".json")
		distributions = append(distributions, object{"directory_url": strings.TrimSuffix(sh.branch(l), "/")})
	}
	for _, k := range sh.keys {
		keys = append(keys, object{"fingerprint": k.Fingerprint, "url": sh.root() + "openpgp/" + k.Fingerprint + ".asc"})
	}
	rolie := object{"rolie": object{"categories": open, "feeds": feeds, "services": []string{sh.root() + "service.json"}}}
	publisher := object{"category": "vendor", "name": sh.Name, "namespace": sh.Namespace}
	if sh.Contact != "" {
		publisher["contact_details"] = sh.Contact
	}
	if sh.Authority != "" {
		publisher["issuing_authority"] = sh.Authority
	}
	return object{
		"canonical_url": sh.root() + "provider-metadata.json", "distributions": append([]object{rolie}, distributions...),
		"last_updated": sh.changed(sh.labels()...), "list_on_CSAF_aggregators": true, "mirror_on_CSAF_aggregators": true, "metadata_version": "2.0",
		"public_openpgp_keys": keys, "publisher": publisher, "role": "csaf_trusted_provider",
	}
}

func (sh *shelf) feed(l csaf.TLPLabel) string {
	return sh.branch(l) + "feed-" + strings.ToLower(string(l)) + ".json"
}

const rolieType = "urn:ietf:params:rolie:category:information-type"

// service is service.json (section 7.1.16).
func (sh *shelf) service() object {
	var collections []object
	for _, l := range sh.labels() {
		collections = append(collections, object{"title": fmt.Sprintf("%s, TLP:%s", sh.Name, l), "href": sh.feed(l),
			"categories": object{"category": []object{{"scheme": rolieType, "term": "csaf"}}}})
	}
	return object{"service": object{"workspace": []object{{"title": "Security advisories of " + sh.Name, "collection": collections}}}}
}

// categories is category-LABEL.json (section 7.1.17): the products that the feed speaks of.
func (sh *shelf) categories(l csaf.TLPLabel) object {
	list := []object{{"scheme": rolieType, "term": "csaf"}}
	for _, e := range sh.read[l] {
		if !slices.ContainsFunc(list, func(o object) bool { return o["term"] == e.productName }) {
			list = append(list, object{"term": e.productName})
		}
	}
	return object{"categories": object{"category": list}}
}

// rolie is the feed of a label (section 7.1.15, RFC 8322 in JSON).
func (sh *shelf) rolie(l csaf.TLPLabel) object {
	entries := []object{}
	for _, e := range sh.read[l] {
		document := sh.at(l, e.initial, e.tracking, "")
		entries = append(entries, object{
			"id": e.tracking, "title": e.title, "published": e.initial, "updated": e.At,
			"summary": object{"content": e.note},
			"link": []object{{"rel": "self", "href": document}, {"rel": "hash", "href": document + ".sha256"}, {"rel": "hash", "href": document + ".sha512"},
				{"rel": "signature", "href": document + ".asc"}},
			"content":  object{"type": "application/json", "src": document},
			"format":   object{"schema": "https://docs.oasis-open.org/csaf/csaf/v2.0/csaf_json_schema.json", "version": "2.0"},
			"category": []object{{"scheme": rolieType, "term": "csaf"}, {"term": e.productName}},
		})
	}
	return object{"feed": object{
		"id": strings.ToLower(sh.Prefix) + "-csaf-feed-tlp-" + strings.ToLower(string(l)), "title": fmt.Sprintf("Security advisories of %s, TLP:%s", sh.Name, l),
		"link":     []object{{"rel": "self", "href": sh.feed(l)}, {"rel": "service", "href": sh.root() + "service.json"}},
		"category": []object{{"scheme": rolieType, "term": "csaf"}}, "updated": sh.changed(l), "entry": entries,
	}}
}

// index is index.txt (section 7.1.12).
func (sh *shelf) index(l csaf.TLPLabel) []byte {
	var b bytes.Buffer
	for _, e := range sh.read[l] {
		fmt.Fprintln(&b, e.file())
	}
	return b.Bytes()
}

// changes is changes.csv (section 7.1.13), the newest first.
func (sh *shelf) changes(l csaf.TLPLabel) []byte {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	for _, e := range sh.read[l] {
		_ = w.Write([]string{e.file(), e.At.Format(time.RFC3339)}) // a buffer takes everything
	}
	w.Flush()
	return b.Bytes()
}

// file is the path of a published document below its branch.
func (e *entry) file() string {
	return strconv.Itoa(e.initial.Year()) + "/" + csaf.Filename(e.tracking)
}

// Provide answers for the tree below /csaf/TENANT/.
func (s *Service) provide(w http.ResponseWriter, r *http.Request) error {
	return s.provideFor(w, r, r.PathValue("tenant"), r.PathValue("file"))
}

// provideHere answers for the tree below /.well-known/csaf/ of the tenant that answers for the host.
func (s *Service) provideHere(w http.ResponseWriter, r *http.Request) error {
	t, err := s.tenantOf(r.Context(), r.Host)
	if err != nil {
		return err
	}
	return s.provideFor(w, r, t, r.PathValue("file"))
}

// DataHost answers for the root of csaf.data.security.HOST (section 7.1.10) with the provider's metadata, and passes
// everything else on.
func (s *Service) DataHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, ok := strings.CutPrefix(r.Host, "csaf.data.security.")
		if !ok || r.URL.Path != "/" {
			next.ServeHTTP(w, r)
			return
		}
		inner := r.Clone(r.Context())
		inner.Host, inner.URL.Path = host, "/.well-known/csaf/provider-metadata.json"
		next.ServeHTTP(w, inner)
	})
}

// tenantOf is who answers for a host: the tenant that named it, else the only one that published anything.
func (s *Service) tenantOf(ctx context.Context, host string) (string, error) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	rows, err := s.cfg.DB.Query(ctx, `SELECT tenant FROM respond_contact_host WHERE host = $1`, host)
	named, err := store.Collect(rows, err, func(r *sql.Rows) (t string, err error) { return t, r.Scan(&t) })
	if err != nil || len(named) == 1 {
		return strings.Join(named, ""), err
	}
	rows, err = s.cfg.DB.Query(ctx, `SELECT DISTINCT a.tenant FROM respond_advisory a WHERE a.revision > 0
		AND NOT EXISTS (SELECT 1 FROM respond_contact_host h WHERE h.tenant = a.tenant) LIMIT 2`)
	only, err := store.Collect(rows, err, func(r *sql.Rows) (t string, err error) { return t, r.Scan(&t) })
	if err == nil && len(only) != 1 {
		err = problem.NotFound("Nobody publishes advisories under this name.")
	}
	return strings.Join(only, ""), err
}

// file1 is one file of the tree.
type file1 struct {
	kind string // Content-Type
	body []byte
}

func (s *Service) provideFor(w http.ResponseWriter, r *http.Request, t, path string) error {
	sh, err := s.shelf(r.Context(), t)
	if err != nil {
		return err
	}
	f, err := s.find(r.Context(), &sh, path)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Vary", "Authorization, Cookie")
	if r.Header.Get("Authorization") == "" && r.Header.Get("Cookie") == "" {
		h.Set("Cache-Control", "public, max-age=300")
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	}
	_, err = io.Copy(w, bytes.NewReader(f.body))
	return err
}

// find is the file or folder at the path below the root.
func (s *Service) find(ctx context.Context, sh *shelf, path string) (file1, error) {
	parts := strings.Split(path, "/")
	label := csaf.TLPLabel(strings.ToUpper(parts[0]))
	switch {
	case path == "":
		return s.folder(sh, sh.labels(), "")
	case path == "provider-metadata.json":
		return jsonFile(sh.metadata())
	case path == "service.json":
		return jsonFile(sh.service())
	case parts[0] == "openpgp" && len(parts) == 2:
		for _, k := range sh.keys {
			if parts[1] == k.Fingerprint+".asc" {
				return file1{"application/pgp-keys", []byte(k.Public)}, nil
			}
		}
	case slices.Contains(circles, label) && parts[0] == strings.ToLower(string(label)) && sh.read[label] == nil:
		return file1{}, problem.Unauthenticated("TLP:%s is not for everybody.", label).Hint("Sign in, or send a token: Authorization: Bearer ot_…")
	case slices.Contains(sh.labels(), label) && parts[0] == strings.ToLower(string(label)):
		return s.findIn(ctx, sh, label, parts[1:])
	}
	return file1{}, problem.NotFound("There is no such file.")
}

func (s *Service) findIn(ctx context.Context, sh *shelf, l csaf.TLPLabel, parts []string) (file1, error) {
	name := parts[len(parts)-1]
	low := strings.ToLower(string(l))
	if len(parts) == 1 {
		switch name {
		case "":
			return s.folder(sh, []csaf.TLPLabel{l}, "")
		case "feed-" + low + ".json":
			return jsonFile(sh.rolie(l))
		case "category-" + low + ".json":
			return jsonFile(sh.categories(l))
		case "index.txt":
			return file1{"text/plain; charset=utf-8", sh.index(l)}, nil
		case "changes.csv":
			return file1{"text/csv; charset=utf-8", sh.changes(l)}, nil
		}
	}
	if len(parts) == 2 && name == "" {
		return s.folder(sh, []csaf.TLPLabel{l}, parts[0])
	}
	for _, e := range sh.read[l] {
		if suffix, ok := strings.CutPrefix(strings.Join(parts, "/"), strings.TrimSuffix(e.file(), ".json")); ok && slices.Contains(beside, suffix) {
			return s.beside(ctx, sh, e, suffix)
		}
	}
	return file1{}, problem.NotFound("There is no such file.")
}

// beside are the endings of the files of one advisory.
var beside = []string{".json", ".json.sha256", ".json.sha512", ".json.asc", ".html"}

// beside is the document of the newest revision or what lies beside it.
func (s *Service) beside(ctx context.Context, sh *shelf, e entry, suffix string) (file1, error) {
	var signature string
	if err := s.cfg.DB.QueryRow(ctx, `SELECT document, signature FROM respond_advisory_revision WHERE tenant = $1 AND advisory = $2 AND number = $3`,
		sh.tenant, e.id, e.Number).Scan(&e.document, &signature); err != nil {
		return file1{}, err
	}
	name := csaf.Filename(e.tracking)
	switch suffix {
	case ".json":
		return file1{"application/json", e.document}, nil
	case ".json.sha256":
		return file1{"text/plain; charset=utf-8", fmt.Appendf(nil, "%s  %s\n", e.SHA256, name)}, nil
	case ".json.sha512":
		return file1{"text/plain; charset=utf-8", fmt.Appendf(nil, "%s  %s\n", e.SHA512, name)}, nil
	case ".json.asc":
		return file1{"application/pgp-signature", []byte(signature)}, nil
	default:
		return s.advisoryPage(sh, e)
	}
}

func jsonFile(v any) (file1, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return file1{"application/json", b.Bytes()}, err
}

// CSAFAddress is where the tenant's provider is, for security.txt; "" while nothing was published.
func (s *Service) csafAddress(ctx context.Context, t string) string {
	sh, err := s.shelf(tenant.WithActor(ctx, tenant.Actor{}), t)
	if err != nil || len(sh.read[csaf.TLPWhite]) == 0 {
		return ""
	}
	u, err := url.Parse(sh.root())
	if err != nil || u.Host == "" {
		return ""
	}
	return u.JoinPath("provider-metadata.json").String()
}
