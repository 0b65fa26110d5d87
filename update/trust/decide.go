// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
	"strings"
	"time"
)

// Device is what a device knows of itself when it decides.
type Device struct {
	Product  string
	Revision string
	// Floor is the lowest security_version it accepts: the highest it has ever committed.
	Floor int64
	// Running is the security_version that runs now.
	Running int64
	// DataFloor is the data generation that the running software has migrated to.
	DataFloor int64
	// Metadata is the highest version of targets it has seen.
	Metadata int64
}

// Decide answers whether d may install the release at path, at the time now, going by the trusted root and the bytes of
// a targets document from an untrusted server. The error is a *Refusal. The image itself is checked with Target.Check.
func Decide(root *Root, targets []byte, path string, d Device, now time.Time) (Target, error) {
	t, err := root.Verify(targets, now)
	if err != nil {
		return Target{}, err
	}
	if t.Version < d.Metadata {
		return Target{}, refuse(RuleRollback, "the signed list has version %d; version %d was seen before", t.Version, d.Metadata)
	}
	target, ok := t.Targets[path]
	if !ok {
		return Target{}, refuse(RuleTarget, "the signed list does not name %q", path)
	}
	return target, target.Allows(d)
}

// Allows applies the rules that compare a signed release with a device.
func (t Target) Allows(d Device) error {
	if t.Product != d.Product {
		return refuse(RuleProduct, "it is made for product %s, not for %s", t.Product, d.Product)
	}
	if !slices.Contains(t.HW, d.Revision) {
		return refuse(RuleHardware, "it is made for hardware %s, not for %s", strings.Join(t.HW, ", "), d.Revision)
	}
	if t.SecurityVersion < d.Floor {
		return refuse(RuleFloor, "security version %d lies below the floor of %d", t.SecurityVersion, d.Floor)
	}
	if t.DataFloor < d.DataFloor {
		return refuse(RuleDataFloor, "it reads data of generation %d; this device has migrated to %d", t.DataFloor, d.DataFloor)
	}
	if d.Running < t.MinFrom {
		return refuse(RuleMinFrom, "it installs over security version %d or later; %d runs here", t.MinFrom, d.Running)
	}
	return nil
}

// Check reads image to its end and refuses any other bytes than the signed ones. It reads at most one byte too many.
func (t Target) Check(image io.Reader) error {
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(image, t.Length+1))
	if err != nil {
		return err
	}
	if n != t.Length {
		return refuse(RuleDigest, "the image does not have the %d bytes that were signed for", t.Length)
	}
	if sum := "sha256:" + hex.EncodeToString(h.Sum(nil)); sum != t.SHA256 {
		return refuse(RuleDigest, "the image is %s; %s was signed", sum, t.SHA256)
	}
	return nil
}
