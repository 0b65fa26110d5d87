// SPDX-License-Identifier: AGPL-3.0-only

package advisory

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
	"github.com/openthings-platform/openthings/respond/pgp"
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

// shelf is the provider of a tenant as a caller sees it.
type shelf struct {
	Publisher
	reader  tenant.Actor
	updated time.Time // the publisher's own data
	keys    []pgp.Key
	newest  map[csaf.TLPLabel]time.Time // of each label that is open to the caller, when something changed there
}

// shelf opens the provider of a tenant. Until something is published there is none.
func (s *Service) shelf(ctx context.Context, t string) (sh shelf, err error) {
	sh.reader, _ = tenant.ActorFrom(ctx)
	sh.newest = map[csaf.TLPLabel]time.Time{csaf.TLPWhite: {}} // the open branch is always there
	if sh.Publisher, sh.updated, err = s.publisher(ctx, t); err != nil {
		return sh, err
	}
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT tlp, product, max(latest) FROM respond_advisory WHERE tenant = $1 AND revision > 0 GROUP BY tlp, product`, t)
		branches, err := store.Collect(rows, err, func(r *sql.Rows) (label csaf.TLPLabel, err error) {
			var product string
			var latest int64
			if err := r.Scan(&label, &product, &latest); err == nil && sh.opens(label, product) {
				sh.newest[label] = later(sh.newest[label], store.Time(latest))
			}
			return label, err
		})
		if err == nil && len(branches) == 0 {
			err = problem.NotFound("Nothing was published here.")
		}
		if err == nil {
			sh.keys, err = pgp.Of(tx, t)
		}
		return err
	})
	return sh, err
}

// opens reports whether the caller may read what was published with the label about the product.
func (sh *shelf) opens(label csaf.TLPLabel, product string) bool {
	switch label {
	case csaf.TLPWhite:
		return true
	case csaf.TLPRed:
		return tenant.Can(sh.reader, tenant.AdvisoryRead, tenant.Thing{Tenant: sh.tenant, Product: product})
	default:
		return sh.reader.Tenant == sh.tenant && tenant.Anywhere(sh.reader, tenant.AdvisoryRead)
	}
}

// entries are what the caller may read of a label, the newest change first; with a tracking id that one alone.
func (s *Service) entries(ctx context.Context, sh *shelf, label csaf.TLPLabel, tracking string) (es []entry, err error) {
	err = s.cfg.DB.View(ctx, func(tx *store.Tx) error { es, err = published(tx, sh.tenant, label, tracking); return err })
	return slices.DeleteFunc(es, func(e entry) bool { return !sh.opens(label, e.product) }), err
}

// labels are the branches that are open to the caller, the widest first.
func (sh *shelf) labels() []csaf.TLPLabel {
	return slices.DeleteFunc(slices.Clone(circles), func(l csaf.TLPLabel) bool { _, open := sh.newest[l]; return !open })
}

// changed is when something on the shelf changed last.
func (sh *shelf) changed(labels ...csaf.TLPLabel) time.Time {
	at := sh.updated
	for _, k := range sh.keys {
		at = later(at, k.Made)
	}
	for _, l := range labels {
		at = later(at, sh.newest[l])
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
func (sh *shelf) categories(es []entry) object {
	list := []object{{"scheme": rolieType, "term": "csaf"}}
	for _, e := range es {
		if !slices.ContainsFunc(list, func(o object) bool { return o["term"] == e.productName }) {
			list = append(list, object{"term": e.productName})
		}
	}
	return object{"categories": object{"category": list}}
}

// rolie is the feed of a label (section 7.1.15, RFC 8322 in JSON).
func (sh *shelf) rolie(l csaf.TLPLabel, es []entry) object {
	entries := []object{}
	for _, e := range es {
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
func index(es []entry) []byte {
	var b bytes.Buffer
	for _, e := range es {
		fmt.Fprintln(&b, e.file())
	}
	return b.Bytes()
}

// changes is changes.csv (section 7.1.13), the newest first.
func changes(es []entry) []byte {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	for _, e := range es {
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
		return s.folder(ctx, sh, sh.labels(), "")
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
	case slices.Contains(circles, label) && parts[0] == strings.ToLower(string(label)) && len(parts) > 1:
		if !slices.Contains(sh.labels(), label) {
			return file1{}, problem.Unauthenticated("TLP:%s is not for everybody.", label).Hint("Sign in, or send a token: Authorization: Bearer ot_…")
		}
		if len(parts) == 2 {
			return s.ofLabel(ctx, sh, label, parts[1])
		}
		if len(parts) == 3 {
			return s.ofYear(ctx, sh, label, parts[1], parts[2])
		}
	}
	return file1{}, errNoFile
}

var errNoFile = problem.NotFound("There is no such file.")

// ofLabel is a file that speaks of a whole label, or its folder.
func (s *Service) ofLabel(ctx context.Context, sh *shelf, l csaf.TLPLabel, name string) (file1, error) {
	if name == "" {
		return s.folder(ctx, sh, []csaf.TLPLabel{l}, "")
	}
	es, err := s.entries(ctx, sh, l, "")
	if err != nil {
		return file1{}, err
	}
	switch low := strings.ToLower(string(l)); name {
	case "feed-" + low + ".json":
		return jsonFile(sh.rolie(l, es))
	case "category-" + low + ".json":
		return jsonFile(sh.categories(es))
	case "index.txt":
		return file1{"text/plain; charset=utf-8", index(es)}, nil
	case "changes.csv":
		return file1{"text/csv; charset=utf-8", changes(es)}, nil
	}
	return file1{}, errNoFile
}

// ofYear is a file of one advisory, or the folder of a year.
func (s *Service) ofYear(ctx context.Context, sh *shelf, l csaf.TLPLabel, year, name string) (file1, error) {
	if name == "" {
		return s.folder(ctx, sh, []csaf.TLPLabel{l}, year)
	}
	base, suffix, _ := strings.Cut(name, ".") // ids have no dot
	es, err := s.entries(ctx, sh, l, strings.ToUpper(base))
	if err != nil {
		return file1{}, err
	}
	if len(es) != 1 || es[0].file() != year+"/"+base+".json" || !slices.Contains(beside, "."+suffix) {
		return file1{}, errNoFile
	}
	return s.beside(ctx, sh, es[0], "."+suffix)
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
		return s.publicPage(sh, e)
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

// Metadata is where the tenant's provider is, for security.txt; "" while nothing was published.
func (s *Service) Metadata(ctx context.Context, t string) string {
	sh, err := s.shelf(tenant.WithActor(ctx, tenant.Actor{}), t)
	if err != nil || sh.newest[csaf.TLPWhite].IsZero() {
		return ""
	}
	u, err := url.Parse(sh.root())
	if err != nil || u.Host == "" {
		return ""
	}
	return u.JoinPath("provider-metadata.json").String()
}
