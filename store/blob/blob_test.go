// SPDX-License-Identifier: AGPL-3.0-only

package blob

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/openthings-platform/openthings/problem"
)

func TestDir(t *testing.T) {
	root := t.TempDir()
	d, err := NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	digest, n, err := d.Put(ctx, strings.NewReader("firmware"), 8)
	if err != nil || n != 8 {
		t.Fatal(digest, n, err)
	}
	if again, _, err := d.Put(ctx, strings.NewReader("firmware"), 8); err != nil || again != digest {
		t.Fatal(again, err)
	}
	f, err := d.Open(ctx, digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "firmware" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, _, err := d.Put(ctx, strings.NewReader("firmware!"), 8); !problem.Is(err, problem.KindTooLarge) {
		t.Errorf("too large: %v", err)
	}
	boom := errors.New("line dropped")
	if _, _, err := d.Put(ctx, io.MultiReader(strings.NewReader("half"), iotest.ErrReader(boom)), 8); !errors.Is(err, boom) {
		t.Errorf("broken upload: %v", err)
	}
	for _, bad := range []string{"", "sha256:..", "../../etc/passwd", "sha256:" + strings.Repeat("A", 64), "md5:00"} {
		if _, err := d.Open(ctx, bad); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("Open(%q): %v", bad, err)
		}
	}
	if _, err := d.Open(ctx, "sha256:"+strings.Repeat("0", 64)); !problem.Is(err, problem.KindNotFound) {
		t.Errorf("absent: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(root, "tmp-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(root, "sha256")); err != nil {
		t.Error(err)
	}
}
