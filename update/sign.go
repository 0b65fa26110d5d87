// SPDX-License-Identifier: AGPL-3.0-only

package update

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
	"github.com/openthings-platform/openthings/update/trust"
)

// Files of a signing folder. It belongs to the manufacturer and is kept offline; only root.json and targets.json leave it.
const (
	FileRootKey    = "root.key"
	FileTargetsKey = "targets.key"
	FileRoot       = "root.json"
	FileTargets    = "targets.json"
)

// SignInitOptions are the choices of SignInit.
type SignInitOptions struct {
	Expires time.Time // of the root; zero: in one year
	Now     time.Time // zero: the machine's time
}

// SignInit makes a signing folder: a root key, a targets key (both 0600) and root.json, which is sent to the platform
// once. It refuses a folder that holds keys already.
func SignInit(dir string, o SignInitOptions) error {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.Expires.IsZero() {
		o.Expires = o.Now.AddDate(1, 0, 0)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	keys := map[string]crypto.Signer{}
	for _, name := range []string{FileRootKey, FileTargetsKey} {
		key, err := trust.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		b, err := trust.MarshalKey(key)
		if err != nil {
			return err
		}
		if err := create(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
		keys[name] = key
	}
	doc, err := trust.NewRoot(trust.RootSpec{Version: 1, Expires: o.Expires, RootThreshold: 1, TargetsThreshold: 1,
		RootKeys: []crypto.PublicKey{keys[FileRootKey].Public()}, TargetsKeys: []crypto.PublicKey{keys[FileTargetsKey].Public()}}, keys[FileRootKey])
	if err != nil {
		return err
	}
	return create(filepath.Join(dir, FileRoot), doc, 0o644)
}

// create writes a new file and never replaces one: a lost signing key cannot be had again.
func create(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// SignReleaseOptions describe the release to sign. Everything up to SecurityVersion is mandatory.
type SignReleaseOptions struct {
	Dir             string   // the signing folder
	Image           string   // file
	SBOM            string   // file
	Product         string   // product id
	HW              []string // names of hardware revisions
	Version         string
	SecurityVersion int64 // rises when an older release must never be installed again

	Floors map[string]SignFloor // by hardware revision, as they are advised; none: the security version is not compared

	DataFloor int64     // generation of device data that it writes
	MinFrom   int64     // lowest security_version it may be installed over
	Class     string    // trust.ClassSecurity or trust.ClassFeature; "": feature
	Expires   time.Time // of the signed list; zero: in six months
	Now       time.Time // zero: the machine's time
	Out       string    // where the signed list goes as well; "": only into the folder
}

// SignFloor is the lowest security version that is safe on a hardware revision.
type SignFloor struct {
	SecurityVersion int64
	Because         string
}

// aboveFloors refuses a security version that would let devices go back to a release that is not safe.
func (o SignReleaseOptions) aboveFloors() error {
	for _, hw := range o.HW {
		if f := o.Floors[hw]; o.SecurityVersion < f.SecurityVersion {
			return problem.Forbidden(RuleAdvised, "For hardware %s security version %d or higher is advised: %s. With %d, devices that installed it could go back.", hw, f.SecurityVersion, f.Because, o.SecurityVersion).
				Hint("Sign it with --security-version %d.", f.SecurityVersion)
		}
	}
	return nil
}

// SignRelease adds a release to the signed list of the folder (targets.json) and signs the list with targets.key. The
// list's version rises by one each time. Nothing is sent anywhere.
func SignRelease(o SignReleaseOptions) error {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.Expires.IsZero() {
		o.Expires = o.Now.AddDate(0, 6, 0)
	}
	if o.Class == "" {
		o.Class = trust.ClassFeature
	}
	if err := o.aboveFloors(); err != nil {
		return err
	}
	key, err := readKey(filepath.Join(o.Dir, FileTargetsKey))
	if err != nil {
		return err
	}
	version, list, err := signedBefore(o.Dir)
	if err != nil {
		return err
	}
	target := trust.Target{Path: o.Product + "/" + o.Version, Product: o.Product, HW: o.HW, Version: o.Version, SecurityVersion: o.SecurityVersion,
		DataFloor: o.DataFloor, MinFrom: o.MinFrom, Class: o.Class}
	if target.SHA256, target.Length, err = digestFile(o.Image, MaxImage); err != nil {
		return err
	}
	if target.SBOM, _, err = digestFile(o.SBOM, sbom.MaxBytes); err != nil {
		return err
	}
	if i := slices.IndexFunc(list, func(t trust.Target) bool { return t.Path == target.Path }); i >= 0 {
		if list[i].SHA256 != target.SHA256 {
			return problem.Conflict("%s is signed already, for another image.", target.Path).Hint("A version names one image for ever: choose a new version.")
		}
		list = slices.Delete(list, i, i+1)
	}
	doc, err := trust.SignTargets(version+1, o.Expires, append(list, target), key)
	if err != nil {
		return err
	}
	for _, path := range []string{filepath.Join(o.Dir, FileTargets), o.Out} {
		if path == "" {
			continue
		}
		if err := replace(path, doc); err != nil {
			return err
		}
	}
	return nil
}

// readKey refuses a key file that others may read.
func readKey(path string) (crypto.Signer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others: chmod 600 it", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := trust.ParseKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// signedBefore reads the folder's list, under the folder's own root. An expired one still says what was signed.
func signedBefore(dir string) (version int64, list []trust.Target, err error) {
	doc, err := os.ReadFile(filepath.Join(dir, FileTargets))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	rootDoc, err := os.ReadFile(filepath.Join(dir, FileRoot))
	if err != nil {
		return 0, nil, err
	}
	root, err := trust.ParseRoot(rootDoc)
	if err != nil {
		return 0, nil, err
	}
	t, err := root.Verify(doc, time.Unix(0, 0))
	if err != nil {
		return 0, nil, err
	}
	for _, x := range t.Targets {
		list = append(list, x)
	}
	return t.Version, list, nil
}

func digestFile(path string, limit int64) (digest string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, io.LimitReader(f, limit+1))
	if err == nil && size > limit {
		err = problem.TooLarge("%s has more than %d bytes", path, limit)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), size, err
}

// replace writes path whole or not at all.
func replace(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := create(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// shortKey is as much of a key id as people compare.
func shortKey(id string) string { return id[:min(len(id), 12)] }
