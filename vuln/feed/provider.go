// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// Bounds of a provider.
const (
	maxMetadata  = 4 << 20  // bytes of provider-metadata.json
	maxROLIE     = 64 << 20 // bytes of a feed
	maxDocuments = 20_000   // documents of a provider
	maxChecksum  = 4 << 10  // bytes of a file with a digest
	maxSignature = 64 << 10
	readAllEvery = 7 * 24 * time.Hour // a list of changes is believed no longer than this
)

// RuleForeign refuses a document whose signature is not by the provider's key.
const RuleForeign = "feed.signature"

// metadata is provider-metadata.json (CSAF 2.0, section 7.1.7), as far as fetching needs it.
type metadata struct {
	Role          string `json:"role"`
	Distributions []struct {
		Directory string `json:"directory_url"`
		ROLIE     struct {
			Feeds []struct {
				TLP string `json:"tlp_label"`
				URL string `json:"url"`
			} `json:"feeds"`
		} `json:"rolie"`
	} `json:"distributions"`
	Keys []struct {
		Fingerprint string `json:"fingerprint"`
		URL         string `json:"url"`
	} `json:"public_openpgp_keys"`
}

// listedDoc is one document of a provider, as its list has it.
type listedDoc struct {
	address   string
	updated   string
	hash      string // address of its digest, if the list names it
	signature string
}

// gatherCSAF fetches the documents of a provider that its list calls changed, and once a week all of them. Each is compared
// with its digest and, where keys are known, checked against its signature, before any is handed over.
func (f *Fetcher) gatherCSAF(ctx context.Context, s Source, last Cursor) (*Haul, error) {
	f.say(path.Base(s.Location), 0, 0)
	var meta metadata
	if err := f.json(ctx, s.Location, maxMetadata, &meta); err != nil {
		return nil, err
	}
	docs, err := f.listed(ctx, meta)
	if err != nil {
		return nil, err
	}
	ring, err := f.keyring(ctx, s, meta)
	if err != nil {
		return nil, err
	}
	trusted := meta.Role == "csaf_trusted_provider"
	now := f.Clock.Now().UTC()
	h := &Haul{Cursor: Cursor{Full: last.Full, Files: map[string]Seen{}}, whole: false}
	all := now.Sub(last.Full) >= readAllEvery
	if all {
		h.Cursor.Full = now
	}
	for i, d := range docs {
		was := last.Files[d.address]
		if !all && d.updated != "" && was.Modified == d.updated {
			h.Cursor.Files[d.address] = was
			continue
		}
		f.say(path.Base(d.address), i, len(docs))
		file, _, err := f.get(ctx, remote{docName(d.address), d.address}, Seen{}, maxCSAF)
		if err != nil {
			return nil, err
		}
		b, err := file.bytes()
		if err != nil {
			return nil, err
		}
		if err := f.verify(ctx, d, b, ring, trusted, len(s.Keys) > 0); err != nil {
			f.forget(d.address)
			return nil, err
		}
		sum := sha256.Sum256(b)
		seen := Seen{Modified: d.updated, Digest: hex.EncodeToString(sum[:])}
		h.Cursor.Files[d.address] = seen
		if seen.Digest != was.Digest {
			h.Files = append(h.Files, *file)
		}
	}
	if len(h.Files) == 0 && !all {
		return nil, nil
	}
	if len(h.Files) == 0 && len(last.Files) > 0 {
		return nil, nil
	}
	return h, nil
}

// docName is where a document stands in the set: two years of a provider may use one name.
func docName(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return path.Base(address)
	}
	return strings.TrimPrefix(path.Clean(u.Path), "/")
}

// listed reads the lists of a provider: ROLIE where it has them, else its directories.
func (f *Fetcher) listed(ctx context.Context, meta metadata) ([]listedDoc, error) {
	var docs []listedDoc
	var directories []string
	for _, d := range meta.Distributions {
		for _, r := range d.ROLIE.Feeds {
			if tlp := strings.ToUpper(r.TLP); tlp != "" && tlp != "WHITE" && tlp != "CLEAR" && tlp != "UNLABELED" {
				continue // needs a login
			}
			got, err := f.rolie(ctx, r.URL)
			if err != nil {
				return nil, err
			}
			docs = append(docs, got...)
		}
		if d.Directory != "" {
			directories = append(directories, d.Directory)
		}
	}
	if len(docs) == 0 {
		for _, dir := range directories {
			got, err := f.directory(ctx, dir)
			if err != nil {
				return nil, err
			}
			docs = append(docs, got...)
		}
	}
	slices.SortStableFunc(docs, func(a, b listedDoc) int { return cmp.Compare(a.address, b.address) })
	docs = slices.CompactFunc(docs, func(a, b listedDoc) bool { return a.address == b.address })
	switch {
	case len(docs) == 0:
		return nil, problem.Invalid("the provider offers no document that is open to everybody")
	case len(docs) > maxDocuments:
		return nil, problem.TooLarge("the provider lists %d documents; at most %d are read", len(docs), maxDocuments)
	}
	return docs, nil
}

// rolie reads a ROLIE feed (RFC 8322, in the JSON form of CSAF 2.0, section 7.1.15).
func (f *Fetcher) rolie(ctx context.Context, address string) ([]listedDoc, error) {
	b, err := f.small(ctx, address, maxROLIE)
	if err != nil {
		return nil, err
	}
	return parseROLIE(address, b)
}

func parseROLIE(address string, b []byte) ([]listedDoc, error) {
	var doc struct {
		Feed *struct {
			Entry []struct {
				Updated string `json:"updated"`
				Link    []struct {
					Rel  string `json:"rel"`
					Href string `json:"href"`
				} `json:"link"`
				Content struct {
					Src string `json:"src"`
				} `json:"content"`
			} `json:"entry"`
		} `json:"feed"`
	}
	if err := json.Unmarshal(b, &doc); err != nil || doc.Feed == nil {
		return nil, problem.Invalid("the ROLIE feed of %s cannot be read", host(address)).Because(err)
	}
	var docs []listedDoc
	for _, e := range doc.Feed.Entry {
		d := listedDoc{address: e.Content.Src, updated: e.Updated}
		for _, l := range e.Link {
			switch {
			case l.Rel == "self" && d.address == "":
				d.address = l.Href
			case l.Rel == "hash" && (d.hash == "" || strings.HasSuffix(l.Href, ".sha512")):
				d.hash = l.Href
			case l.Rel == "signature":
				d.signature = l.Href
			}
		}
		for _, a := range []string{d.address, d.hash, d.signature} {
			if _, err := checkURL(a); a != "" && err != nil {
				return nil, err
			}
		}
		if d.address == "" {
			return nil, problem.Invalid("an entry of the ROLIE feed of %s names no document", host(address))
		}
		docs = append(docs, d)
	}
	return docs, nil
}

// directory reads changes.csv and index.txt of a directory (CSAF 2.0, sections 7.1.12 and 7.1.13). The index says what
// there is; the changes only say when.
func (f *Fetcher) directory(ctx context.Context, base string) ([]listedDoc, error) {
	index, err := f.small(ctx, join(base, "index.txt"), maxIndex)
	if err != nil {
		return nil, err
	}
	names, err := indexed(string(index))
	if err != nil {
		return nil, err
	}
	changes, err := f.small(ctx, join(base, "changes.csv"), maxIndex)
	if err != nil && !problem.Is(err, problem.KindNotFound) {
		return nil, err
	}
	when, err := parseChanges(changes)
	if err != nil {
		return nil, err
	}
	var docs []listedDoc
	for _, name := range names {
		docs = append(docs, listedDoc{address: join(base, escaped(name)), updated: when[name]})
	}
	return docs, nil
}

// parseChanges reads lines such as "2024/acme-2024-1.json","2024-05-01T10:00:00Z".
func parseChanges(b []byte) (map[string]string, error) {
	r := csv.NewReader(strings.NewReader(string(b)))
	r.FieldsPerRecord = 2
	when := map[string]string{}
	for {
		line, err := r.Read()
		if errors.Is(err, io.EOF) {
			return when, nil
		}
		if err != nil || len(when) > maxFeedFiles {
			return nil, problem.Invalid("changes.csv cannot be read").Because(err)
		}
		when[line[0]] = line[1]
	}
}

// verify compares a document with its digest and checks its signature. A trusted provider must give both (CSAF 2.0,
// section 7.2.3); so must anybody whose keys a person named here.
func (f *Fetcher) verify(ctx context.Context, d listedDoc, b []byte, ring *keyring, trusted, pinned bool) error {
	sums := []string{d.hash}
	if d.hash == "" {
		sums = []string{d.address + ".sha512", d.address + ".sha256"}
	}
	compared := false
	for _, at := range sums {
		text, err := f.small(ctx, at, maxChecksum)
		if problem.Is(err, problem.KindNotFound) && d.hash == "" {
			continue
		}
		if err != nil {
			return err
		}
		var h hash.Hash = sha256.New()
		if strings.HasSuffix(at, ".sha512") {
			h = sha512.New()
		}
		h.Write(b)
		want, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		if !strings.EqualFold(want, hex.EncodeToString(h.Sum(nil))) {
			return problem.Forbidden(RuleAltered, "%s does not have the digest that its provider states.", path.Base(d.address))
		}
		compared = true
		break
	}
	if !compared && trusted {
		return problem.Forbidden(RuleAltered, "%s has no digest, and its provider calls itself trusted.", path.Base(d.address))
	}
	if ring == nil {
		return nil
	}
	sig, err := f.small(ctx, cmp.Or(d.signature, d.address+".asc"), maxSignature)
	if problem.Is(err, problem.KindNotFound) && !trusted && !pinned && d.signature == "" {
		return nil
	}
	if err != nil {
		return err
	}
	if err := ring.check(b, sig, f.Clock.Now()); err != nil {
		return problem.Forbidden(RuleForeign, "The signature of %s is not by a key of its provider.", path.Base(d.address)).Because(err)
	}
	return nil
}

// json fetches a small JSON document.
func (f *Fetcher) json(ctx context.Context, address string, limit int64, v any) error {
	b, err := f.small(ctx, address, limit)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return problem.Invalid("%s of %s cannot be read: %v", path.Base(address), host(address), err)
	}
	return nil
}

// small fetches a file into memory.
func (f *Fetcher) small(ctx context.Context, address string, limit int64) ([]byte, error) {
	file, _, err := f.get(ctx, remote{path.Base(address), address}, Seen{}, limit)
	if err != nil {
		return nil, err
	}
	defer f.forget(address)
	return file.bytes()
}
