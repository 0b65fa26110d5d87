// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Limits of the documents, in bytes: enough for 10,000 targets, small enough to read on a device with 20 MB.
const (
	MaxRoot    = 512 << 10
	MaxTargets = 5 << 20
)

// Names of the TUF roles of a root. Snapshot and timestamp belong to an online repository.
const (
	RoleRoot      = "root"
	RoleTargets   = "targets"
	RoleSnapshot  = "snapshot"
	RoleTimestamp = "timestamp"
)

// Role is who may sign a kind of document: at least Threshold distinct keys of KeyIDs.
type Role struct {
	KeyIDs    []string
	Threshold int64
}

// Root is a parsed root. ParseRoot verified that it signs itself; whether it is the right one is the holder's pin.
type Root struct {
	Version int64
	Expires time.Time
	Keys    map[string]Key
	Roles   map[string]Role
	Raw     []byte // as read
}

// Class separates security updates from others, as the Cyber Resilience Act, Annex I part I (2)(c) and part II (2), wants.
const (
	ClassSecurity = "security"
	ClassFeature  = "feature"
)

// Target is one release as the manufacturer signed it.
type Target struct {
	Path            string
	Length          int64
	SHA256          string // "sha256:<hex>"
	Product         string // product id
	HW              []string
	Version         string // for people
	SecurityVersion int64
	DataFloor       int64  // generation of the device's data that this release writes; none may follow that is lower
	MinFrom         int64  // lowest security_version it may be installed over; 0: any
	Class           string // ClassSecurity or ClassFeature
	SBOM            string // digest of the bill of materials

	// Metadata is the version of the signed list that it was read from.
	Metadata int64
}

// Targets is a signed list of releases.
type Targets struct {
	Version int64
	Expires time.Time
	Targets map[string]Target
	Signers []string // ids of the keys whose signatures counted
}

type signature struct{ keyID, sig string }

// envelope is a document before anyone has looked at who signed it.
type envelope struct {
	signed object
	bytes  []byte // canonical
	sigs   []signature
	err    error
}

func open(b []byte, limit int, role string) (*envelope, error) {
	tree, err := parse(b, limit)
	if err != nil {
		return nil, err
	}
	e := &envelope{}
	doc := newObject(tree, &e.err)
	e.signed = doc.object("signed")
	for _, s := range member[[]any](doc, "signatures", true) {
		o := newObject(s, &e.err)
		e.sigs = append(e.sigs, signature{o.text("keyid"), o.text("sig")})
	}
	if e.err != nil {
		return nil, e.err
	}
	if t := e.signed.text("_type"); t != role {
		return nil, refuse(RuleFormat, "this is %q where %q is expected", t, role)
	}
	if v := e.signed.text("spec_version"); !strings.HasPrefix(v, "1.") {
		return nil, refuse(RuleFormat, "TUF specification %q is not known here", v)
	}
	e.bytes = canonical(e.signed.m)
	return e, e.err
}

// common reads what every role has.
func (e *envelope) common() (version int64, expires time.Time, err error) {
	version = e.signed.number("version")
	text := e.signed.text("expires")
	if e.err != nil {
		return 0, time.Time{}, e.err
	}
	if version < 1 {
		return 0, time.Time{}, refuse(RuleFormat, "version %d is not a metadata version", version)
	}
	expires, perr := time.Parse("2006-01-02T15:04:05Z", text)
	if perr != nil {
		return 0, time.Time{}, refuse(RuleFormat, "expiry %q is not a time like 2027-01-31T00:00:00Z", text)
	}
	return version, expires, nil
}

// verify returns the ids of the distinct keys of role whose signatures are good, or a refusal below the threshold.
func (r *Root) verify(e *envelope, role string) ([]string, error) {
	rule := r.Roles[role]
	var good []string
	seen := map[string]bool{} // by public key: two ids for one key count once
	for _, s := range e.sigs {
		k, ok := r.Keys[s.keyID]
		if !ok || !slices.Contains(rule.KeyIDs, s.keyID) || seen[k.text] {
			continue
		}
		sig, err := hex.DecodeString(s.sig)
		if err != nil || !k.verify(e.bytes, sig) {
			continue // a bad extra signature does not spoil a met threshold
		}
		seen[k.text] = true
		good = append(good, s.keyID)
	}
	if rule.Threshold < 1 || int64(len(good)) < rule.Threshold {
		return nil, refuse(RuleSignature, "%d of the %d signatures needed on %s by keys that the root lists", len(good), rule.Threshold, role)
	}
	return good, nil
}

// ParseRoot reads a root and checks that its own root keys have signed it. Expiry is left to Decide: an expired root may
// still lead to its successor.
func ParseRoot(b []byte) (*Root, error) {
	r, e, err := readRoot(b)
	if err != nil {
		return nil, err
	}
	if _, err := r.verify(e, RoleRoot); err != nil {
		return nil, err
	}
	return r, nil
}

func readRoot(b []byte) (*Root, *envelope, error) {
	e, err := open(b, MaxRoot, RoleRoot)
	if err != nil {
		return nil, nil, err
	}
	r := &Root{Keys: map[string]Key{}, Roles: map[string]Role{}, Raw: b}
	if r.Version, r.Expires, err = e.common(); err != nil {
		return nil, nil, err
	}
	for id, v := range e.signed.object("keys").m {
		k, err := readKey(newObject(v, &e.err))
		if err != nil {
			return nil, nil, err
		}
		r.Keys[id] = k
	}
	for name, v := range e.signed.object("roles").m {
		o := newObject(v, &e.err)
		role := Role{KeyIDs: o.texts("keyids"), Threshold: o.number("threshold")}
		if e.err != nil {
			return nil, nil, e.err
		}
		if err := r.checkRole(name, role); err != nil {
			return nil, nil, err
		}
		r.Roles[name] = role
	}
	for _, name := range []string{RoleRoot, RoleTargets, RoleSnapshot, RoleTimestamp} {
		if _, ok := r.Roles[name]; !ok && e.err == nil {
			return nil, nil, refuse(RuleFormat, "the root does not define the role %s", name)
		}
	}
	return r, e, e.err
}

func (r *Root) checkRole(name string, role Role) error {
	switch name {
	case RoleRoot, RoleTargets, RoleSnapshot, RoleTimestamp:
	default:
		return refuse(RuleFormat, "a root has no role %q", name)
	}
	distinct := map[string]bool{}
	for _, id := range role.KeyIDs {
		k, ok := r.Keys[id]
		if !ok {
			return refuse(RuleFormat, "role %s lists key %q, which the root does not hold", name, id)
		}
		distinct[k.text] = true
	}
	if role.Threshold < 1 || role.Threshold > int64(len(distinct)) {
		return refuse(RuleFormat, "role %s has %d distinct keys and a threshold of %d", name, len(distinct), role.Threshold)
	}
	return nil
}

// Rotate follows one step of the chain: next must have exactly the following version and be signed by the root keys of
// r as well as by its own.
func (r *Root) Rotate(next []byte) (*Root, error) {
	n, e, err := readRoot(next)
	if err != nil {
		return nil, err
	}
	if n.Version != r.Version+1 {
		return nil, refuse(RuleRollback, "root version %d does not follow %d", n.Version, r.Version)
	}
	if _, err := r.verify(e, RoleRoot); err != nil {
		return nil, err
	}
	if _, err := n.verify(e, RoleRoot); err != nil {
		return nil, err
	}
	return n, nil
}

// Verify reads a list of releases and checks who signed it and until when it is good. The errors name RuleFormat,
// RuleSignature and RuleExpired.
func (r *Root) Verify(b []byte, now time.Time) (*Targets, error) {
	e, err := open(b, MaxTargets, RoleTargets)
	if err != nil {
		return nil, err
	}
	t := &Targets{Targets: map[string]Target{}}
	if t.Signers, err = r.verify(e, RoleTargets); err != nil {
		return nil, err
	}
	if t.Version, t.Expires, err = e.common(); err != nil {
		return nil, err
	}
	if !now.Before(r.Expires) {
		return nil, refuse(RuleExpired, "the trust root expired on %s", r.Expires.Format(time.RFC3339))
	}
	if !now.Before(t.Expires) {
		return nil, refuse(RuleExpired, "the signed list of releases expired on %s", t.Expires.Format(time.RFC3339))
	}
	for path, v := range e.signed.object("targets").m {
		target, err := readTarget(path, newObject(v, &e.err))
		if err != nil {
			return nil, err
		}
		target.Metadata = t.Version
		t.Targets[path] = target
	}
	return t, e.err
}

// Shapes of what a target may hold. They end up in paths, pages and queries.
var (
	pathShape    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._+-]{0,63}){0,3}$`)
	nameShape    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}$`)
	productShape = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	digestShape  = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

func readTarget(path string, o object) (Target, error) {
	c := o.object("custom")
	t := Target{
		Path: path, Length: o.number("length"), SHA256: "sha256:" + o.object("hashes").text("sha256"),
		Product: c.text("product"), HW: c.texts("hw"), Version: c.text("version"), SecurityVersion: c.number("security_version"),
		DataFloor: c.optionalNumber("data_floor"), MinFrom: c.optionalNumber("min_from"), Class: c.optional("class"), SBOM: c.text("sbom"),
	}
	if *o.err != nil {
		return Target{}, *o.err
	}
	return t, t.check()
}

// check holds for what is read and for what is about to be signed.
func (t Target) check() error {
	switch {
	case !pathShape.MatchString(t.Path):
		return refuse(RuleFormat, "%q is not a target path", t.Path)
	case t.Length < 1:
		return refuse(RuleFormat, "target %s has a length of %d", t.Path, t.Length)
	case !digestShape.MatchString(t.SHA256) || !digestShape.MatchString(t.SBOM):
		return refuse(RuleFormat, "target %s lacks the SHA-256 of its image or of its bill of materials", t.Path)
	case !productShape.MatchString(t.Product):
		return refuse(RuleFormat, "target %s: %q is not a product id", t.Path, t.Product)
	case len(t.HW) == 0:
		return refuse(RuleFormat, "target %s names no hardware revision", t.Path)
	case !nameShape.MatchString(t.Version):
		return refuse(RuleFormat, "target %s: %q is not a version", t.Path, t.Version)
	case t.SecurityVersion < 1 || t.DataFloor < 0 || t.MinFrom < 0:
		return refuse(RuleFormat, "target %s: security_version starts at 1, data_floor and min_from at 0", t.Path)
	case t.Class != ClassSecurity && t.Class != ClassFeature:
		return refuse(RuleFormat, "target %s: class %q is neither %s nor %s", t.Path, t.Class, ClassSecurity, ClassFeature)
	}
	for _, hw := range t.HW {
		if !nameShape.MatchString(hw) {
			return refuse(RuleFormat, "target %s: %q is not a hardware revision", t.Path, hw)
		}
	}
	return nil
}
