// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"archive/zip"
	"bytes"
	"cmp"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/update/trust"
)

// ManifestName is the file of a bundle or mirror that names and seals all others.
const ManifestName = "MANIFEST"

// Rules that a bundle is refused by.
const (
	RuleUnsigned = "feed.unsigned" // no signature of a key that is trusted for this source
	RuleAltered  = "feed.altered"  // the files are not those that were signed
	RuleOlder    = "feed.older"    // another bundle of the same or a later number was taken before
)

const (
	manifestHead = "openthings feed 1\n"
	maxManifest  = 64 << 20
	keyName      = "openthings-feed" // in a signed note; the hash beside it tells the key
)

// Manifest names the files of a bundle or mirror with their digests. It is written as a signed note
// (golang.org/x/mod/sumdb/note), like every other file of this house that a person carries somewhere.
type Manifest struct {
	Sequence int64     `json:"sequence"` // rises with every bundle of a maker
	Made     time.Time `json:"made"`
	Whole    bool      `json:"whole,omitempty"` // it names all that the maker knows
	Files    []Sealed  `json:"files"`           // by name
}

// Sealed is one file of a manifest.
type Sealed struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"` // bytes
	SHA256   string    `json:"sha256"`
	Origin   string    `json:"origin,omitempty"` // the address that the maker had it from
	Modified time.Time `json:"modified,omitzero"`
}

// Public is the line by which others know a signing key, a verifier key of a signed note: "openthings-feed+1a2b3c4d+A…".
// The key is Ed25519, in the file form that openthings sign init writes.
func Public(key crypto.Signer) (string, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return "", problem.Invalid("a feed is signed with an Ed25519 key; this one is %T", key.Public())
	}
	return note.NewEd25519VerifierKey(keyName, pub)
}

// ParseKey reads a signing key: PKCS#8 in PEM.
func ParseKey(b []byte) (crypto.Signer, error) {
	key, err := trust.ParseKey(b)
	if err != nil {
		return nil, problem.Invalid("the file holds no signing key").Because(err).Hint("openthings feed key FILE makes one")
	}
	if _, err := Public(key); err != nil {
		return nil, err
	}
	return key, nil
}

// CheckKey refuses what is no line of Public.
func CheckKey(line string) error {
	if _, err := note.NewVerifier(line); err != nil {
		return problem.Invalid("%.100q is no key that bundles are checked with", line).Hint("it is one line such as openthings-feed+1a2b3c4d+A…, printed by openthings feed key")
	}
	return nil
}

// Bytes is the manifest, signed.
func (m Manifest) Bytes(key crypto.Signer) ([]byte, error) {
	line, err := Public(key)
	if err != nil {
		return nil, err
	}
	v, err := note.NewVerifier(line)
	if err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	slices.SortFunc(m.Files, func(a, b Sealed) int { return cmp.Compare(a.Name, b.Name) })
	m.Made = m.Made.UTC().Truncate(time.Second)
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	return note.Sign(&note.Note{Text: manifestHead + string(b) + "\n"}, noteSigner{key, v})
}

// noteSigner signs notes with a key of this house.
type noteSigner struct {
	key crypto.Signer
	note.Verifier
}

func (s noteSigner) Sign(msg []byte) ([]byte, error) { return s.key.Sign(nil, msg, crypto.Hash(0)) }

// ParseManifest reads a manifest and checks that one of the keys signed it. Without keys any text passes, signed or not:
// what came over TLS from a name that is trusted needs none.
func ParseManifest(b []byte, keys []string) (Manifest, error) {
	if len(b) > maxManifest {
		return Manifest{}, problem.TooLarge("the manifest has more than %d bytes", maxManifest)
	}
	var known []note.Verifier
	for _, k := range keys {
		v, err := note.NewVerifier(k)
		if err != nil {
			return Manifest{}, CheckKey(k)
		}
		known = append(known, v)
	}
	text := ""
	n, err := note.Open(b, note.VerifierList(known...))
	var unsigned *note.UnverifiedNoteError
	switch {
	case err == nil:
		text = n.Text
	case errors.As(err, &unsigned) && len(keys) == 0:
		text = unsigned.Note.Text
	case len(keys) > 0:
		return Manifest{}, problem.Forbidden(RuleUnsigned, "The manifest is not signed by a key that this source trusts.").Because(err).
			Hint("ask its maker for the line that openthings feed key prints, and compare it over another way")
	default:
		return Manifest{}, problem.Invalid("the manifest is no signed note: %v", err)
	}
	body, ok := strings.CutPrefix(text, manifestHead)
	if !ok {
		return Manifest{}, problem.Invalid("the manifest does not begin with %q", strings.TrimSpace(manifestHead))
	}
	var m Manifest
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		return Manifest{}, problem.Invalid("the manifest cannot be read: %v", err)
	}
	return m, m.check()
}

func (m Manifest) check() error {
	if m.Sequence < 1 || m.Made.IsZero() || len(m.Files) == 0 || len(m.Files) > maxFeedFiles {
		return problem.Invalid("the manifest has no number, no date or no files")
	}
	seen := make(map[string]bool, len(m.Files))
	for _, f := range m.Files {
		sum, err := hex.DecodeString(f.SHA256)
		if err != nil || len(sum) != sha256.Size || f.Size < 0 || f.Size > MaxBytes {
			return problem.Invalid("the manifest gives %.80q no size and digest that are read", f.Name)
		}
		if !fs.ValidPath(f.Name) || f.Name == "." || f.Name == ManifestName || strings.ContainsAny(f.Name, "\\:") || len(f.Name) > 500 {
			return problem.Invalid("the manifest names a file outside itself: %.80q", f.Name)
		}
		if seen[f.Name] {
			return problem.Invalid("the manifest names %.80q twice", f.Name)
		}
		seen[f.Name] = true
	}
	return nil
}

// after refuses a manifest that is not newer than what was taken last.
func (m Manifest) after(sequence int64) error {
	if m.Sequence < sequence {
		return problem.Forbidden(RuleOlder, "This is number %d of %s; number %d was taken before.", m.Sequence, m.Made.Format("2006-01-02 15:04 UTC"), sequence).
			Hint("an older set would take back what is known already")
	}
	return nil
}

// Seal describes a file for a manifest.
func Seal(f File) (Sealed, error) {
	in, err := f.open()
	if err != nil {
		return Sealed{}, fmt.Errorf("feed: %w", err)
	}
	defer in.Close()
	h := sha256.New()
	n, err := io.Copy(h, in)
	if err != nil {
		return Sealed{}, fmt.Errorf("feed: %w", err)
	}
	return Sealed{Name: f.Name, Size: n, SHA256: hex.EncodeToString(h.Sum(nil)), Origin: f.Origin, Modified: f.Modified.UTC().Truncate(time.Second)}, nil
}

// WriteBundle writes files as one signed archive for a site without a network. They are judged first: a bundle that its
// reader would refuse is not made. The files are stored as they are, since they are packed already or pack badly.
func WriteBundle(w io.Writer, key crypto.Signer, m Manifest, files []File) (Manifest, error) {
	files = slices.DeleteFunc(slices.Clone(files), func(f File) bool { return !Wanted(f.Name) })
	f, err := judge(files)
	if err != nil {
		return m, err
	}
	defer f.Close()
	m.Files = nil
	for _, f := range files {
		s, err := Seal(f)
		if err != nil {
			return m, err
		}
		m.Files = append(m.Files, s)
	}
	if err := m.check(); err != nil {
		return m, err
	}
	signed, err := m.Bytes(key)
	if err != nil {
		return m, err
	}
	z := zip.NewWriter(w)
	if err := store(z, ManifestName, m.Made, bytes.NewReader(signed)); err != nil {
		return m, err
	}
	for _, f := range files {
		in, err := f.open()
		if err != nil {
			return m, fmt.Errorf("feed: %w", err)
		}
		if err := errors.Join(store(z, f.Name, m.Made, in), in.Close()); err != nil {
			return m, err
		}
	}
	return m, z.Close()
}

// store adds a file to an archive without packing it, with its size in front, so that an archive in it is read in place.
func store(z *zip.Writer, name string, at time.Time, in io.ReadSeeker) error {
	sum := crc32.NewIEEE()
	n, err := io.Copy(sum, in)
	if err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	w, err := z.CreateRaw(&zip.FileHeader{Name: name, Method: zip.Store, Modified: at, CRC32: sum.Sum32(), CompressedSize64: uint64(n), UncompressedSize64: uint64(n)})
	if err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	_, err = io.Copy(w, in)
	return err
}

// IsBundle says whether a file is meant as a bundle: whoever trusts no key must not take one for a mere archive.
func IsBundle(r io.ReaderAt, size int64) bool {
	z, err := zip.NewReader(r, size)
	return err == nil && slices.ContainsFunc(z.File, func(f *zip.File) bool { return f.Name == ManifestName })
}

// OpenBundle reads a bundle: signed by one of the keys, not older than the number given, every byte as it was signed.
func OpenBundle(r io.ReaderAt, size int64, keys []string, last int64) (*Feed, error) {
	m, files, err := BundleFiles(r, size, keys)
	if err != nil {
		return nil, err
	}
	if err := m.after(last); err != nil {
		return nil, err
	}
	return m.feed(files)
}

// feed judges files that were found to be those of the manifest.
func (m Manifest) feed(files []File) (*Feed, error) {
	f, err := judge(slices.DeleteFunc(files, func(f File) bool { return !Wanted(f.Name) }))
	if err != nil {
		return nil, err
	}
	f.Sequence, f.Whole = m.Sequence, m.Whole
	if f.Made.IsZero() || m.Made.Before(f.Made) {
		f.Made = m.Made.UTC()
	}
	return f, nil
}

// BundleFiles checks a bundle against its manifest and gives its files. Keys are required: a bundle comes by hand.
func BundleFiles(r io.ReaderAt, size int64, keys []string) (Manifest, []File, error) {
	if len(keys) == 0 {
		return Manifest{}, nil, problem.Forbidden(RuleUnsigned, "No key is known that bundles for this feed are signed with.").
			Hint("name one: openthings feed add NAME --kind bundle --key KEY")
	}
	altered := func(format string, args ...any) error {
		return problem.Forbidden(RuleAltered, "The bundle is not what was signed: "+format, args...)
	}
	z, err := zip.NewReader(r, size)
	if err != nil {
		return Manifest{}, nil, problem.Invalid("the bundle is not whole: %v", err).Hint("copy it again and compare the sizes")
	}
	inside := make(map[string]*zip.File, len(z.File))
	for _, f := range z.File {
		if inside[f.Name] != nil {
			return Manifest{}, nil, altered("%.80q stands in it twice.", f.Name)
		}
		inside[f.Name] = f
	}
	head := inside[ManifestName]
	if head == nil {
		return Manifest{}, nil, problem.Forbidden(RuleUnsigned, "The file has no manifest, so nobody signed it.").
			Hint("a bundle is made by openthings feed bundle")
	}
	in, err := head.Open()
	if err != nil {
		return Manifest{}, nil, altered("its manifest cannot be read.")
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, maxManifest+1))
	if err != nil {
		return Manifest{}, nil, altered("its manifest cannot be read.")
	}
	m, err := ParseManifest(b, keys)
	if err != nil {
		return Manifest{}, nil, err
	}
	if len(inside) != len(m.Files)+1 {
		return m, nil, altered("it holds %d files and the manifest names %d.", len(inside)-1, len(m.Files))
	}
	var files []File
	for _, s := range m.Files {
		f := inside[s.Name]
		if f == nil {
			return m, nil, altered("%s is missing.", s.Name)
		}
		at, err := f.DataOffset()
		if err != nil || f.Method != zip.Store || f.CompressedSize64 != uint64(s.Size) || at+s.Size > size {
			return m, nil, altered("%s has another size.", s.Name)
		}
		file := fileOf(s.Name, r, at, s.Size)
		file.Origin, file.Modified = s.Origin, s.Modified
		got, err := Seal(file)
		if err != nil || got.SHA256 != s.SHA256 {
			return m, nil, altered("%s has another content.", s.Name)
		}
		files = append(files, file)
	}
	return m, files, nil
}

// WriteMirror writes the files of a bundle into a folder that any web server can serve, the manifest last: a reader that
// comes in between finds the old manifest or the new one, and never takes a file that neither names.
func WriteMirror(dir string, r io.ReaderAt, size int64, keys []string) (Manifest, error) {
	m, files, err := BundleFiles(r, size, keys)
	if err != nil {
		return m, err
	}
	z, err := zip.NewReader(r, size)
	if err != nil {
		return m, fmt.Errorf("feed: %w", err)
	}
	signed, err := fs.ReadFile(z, ManifestName)
	if err != nil {
		return m, fmt.Errorf("feed: %w", err)
	}
	root, err := openDir(dir)
	if err != nil {
		return m, err
	}
	defer root.Close()
	for _, f := range files {
		if err := root.MkdirAll(path.Dir(f.Name), 0o755); err != nil {
			return m, fmt.Errorf("feed: %w", err)
		}
		in, err := f.open()
		if err != nil {
			return m, fmt.Errorf("feed: %w", err)
		}
		if err := errors.Join(writeFile(root, f.Name, in), in.Close()); err != nil {
			return m, err
		}
	}
	return m, writeFile(root, ManifestName, bytes.NewReader(signed))
}
