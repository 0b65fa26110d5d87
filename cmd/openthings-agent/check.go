// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/update/trust"
)

// check says whether an image is one that the maker signed, by the rules that a device installs by, with no platform and
// no network.
func check(f *flag.FlagSet, args []string, out io.Writer) error {
	rootFile := f.String("root", "root.json", "update trust root of the maker, which you trust")
	listFile := f.String("targets", "targets.json", "signed list of releases")
	imageFile := f.String("image", "", "image to check")
	at := time.Now()
	f.Func("at", "instant such as 2031-12-31T00:00:00Z at which root and list must be good (default now): a list that has expired since is still the maker's", func(v string) (err error) {
		at, err = time.Parse(time.RFC3339, v)
		return err
	})
	if err := f.Parse(args); err != nil {
		return err
	}
	doc, err := os.ReadFile(*rootFile)
	if err != nil {
		return err
	}
	root, err := trust.ParseRoot(doc)
	if err != nil {
		return err
	}
	if doc, err = os.ReadFile(*listFile); err != nil {
		return err
	}
	list, err := root.Verify(doc, at)
	if err != nil {
		return err
	}
	image, err := os.Open(*imageFile)
	if err != nil {
		return err
	}
	defer image.Close()
	h := sha256.New()
	n, err := io.Copy(h, image)
	if err != nil {
		return err
	}
	sum := "sha256:" + hex.EncodeToString(h.Sum(nil))
	for _, t := range list.Targets {
		if t.SHA256 == sum && t.Length == n {
			_, err := fmt.Fprintf(out, "%s is %s, security version %d, for product %s, hardware %s\nsigned by %s, good until %s\n", *imageFile, t.Version, t.SecurityVersion, t.Product,
				strings.Join(t.HW, ", "), strings.Join(list.Signers, ", "), list.Expires.Format(time.RFC3339))
			return err
		}
	}
	return &trust.Refusal{Rule: trust.RuleDigest, Reason: fmt.Sprintf("the list names no image %s of %d bytes", sum, n)}
}
