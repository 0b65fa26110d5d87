// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/openthings-platform/openthings/audit"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
)

const commands = `[
 {"directory":"/build/lamp/work/linux","command":"gcc -c main.c","file":"/build/lamp/src/linux-6.1/init/main.c"},
 {"directory":"/build/lamp/src/linux-6.1","command":"gcc","file":"net/ipv4/route.c","output":"net/ipv4/route.o"},
 {"directory":"/build/lamp/src/linux-6.1/net","arguments":["gcc"],"file":"../net/core/./dev.c"},
 {"directory":"/build/lamp/src/driver","command":"gcc","file":"/build/lamp/src/driver/lamp.c"}]`

const buildLog = `make[1]: Entering directory '/build'
  SYNC    include/config/auto.conf
  CC      init/main.o
  CC [M]  net/ipv4/route.o
  AS      net/core/dev.o
  LD      vmlinux.o
`

func TestCompiledFilesAreRelativeToTheTree(t *testing.T) {
	for name, c := range map[string]struct{ doc, want string }{
		"compile_commands": {commands, "[init/main.c net/core/dev.c net/ipv4/route.c]"},
		"build log":        {buildLog, "[init/main.c net/core/dev.S net/ipv4/route.c]"},
		"plain":            {"# sources\n./init/main.c\nnet/ipv4/route.c\r\n\nnet/ipv4/route.c\nnot a source\n", "[init/main.c net/ipv4/route.c]"},
		"plain, absolute":  {"/src/linux/init/main.c\n/src/linux/fs/open.c\n/src/other/init/x.c\n", "[fs/open.c init/main.c]"},
		"a nested one":     {"init/main.c\ntools/testing/init/main.c\n", "[init/main.c tools/testing/init/main.c]"},
	} {
		got, err := ParseCompiled(strings.NewReader(c.doc))
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, %v; want %s", name, got, err, c.want)
		}
	}
	for name, c := range map[string]struct {
		doc  string
		kind problem.Kind
	}{
		"part of a kernel": {"net/ipv4/route.c\n", problem.KindInvalid},
		"empty":            {"", problem.KindInvalid},
		"an object":        {`{"file":"init/main.c"}`, problem.KindInvalid},
		"broken off":       {commands[:len(commands)-1], problem.KindInvalid},
		"control":          {"init/main.c\nnet/\x01.c\n", problem.KindInvalid},
		"a long line":      {"init/main.c\n" + strings.Repeat("a", maxLine+1), problem.KindTooLarge},
		"too many":         {strings.Repeat("a.c\n", maxCompiled+1), problem.KindTooLarge},
		"too many objects": {"[" + strings.Repeat("{},", maxCompiled+1) + "{}]", problem.KindTooLarge},
	} {
		if got, err := ParseCompiled(strings.NewReader(c.doc)); !problem.Is(err, c.kind) {
			t.Errorf("%s: %v, %v; want %s", name, got, err, c.kind)
		}
	}
}

func TestKernelConfig(t *testing.T) {
	got, err := ParseKernelConfig(strings.NewReader("# Linux/arm 6.1\nCONFIG_NET=y\n# CONFIG_SCTP is not set\nCONFIG_A=\"x y\"\n"))
	if err != nil || fmt.Sprint(got) != `[CONFIG_A="x y" CONFIG_NET=y]` {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "# nothing\n", "hello\n", "CONFIG_A=\x01\n"} {
		if got, err := ParseKernelConfig(strings.NewReader(bad)); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
}

func TestEvidenceIsKeptAndCounts(t *testing.T) {
	storetest.Each(t, []store.Migrations{audit.Schema, Schema}, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		blobs, err := blob.NewDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		s := New(Config{DB: db, Blobs: blobs, Clock: clock.NewHand(begin)})
		var events atomic.Int64
		db.On("sbom.evidence", "test", func(_ context.Context, e store.Event) error {
			events.Add(1)
			return nil
		})
		hash := func(tenant string) (h string) {
			t.Helper()
			if err := db.View(ctx, func(tx *store.Tx) (err error) {
				h, err = s.EvidenceHash(tx, tenant, "rel_1")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return h
		}
		add := func(kind EvidenceKind, doc string) Evidence {
			t.Helper()
			e, err := s.AddEvidence(ctx, "ten_a", "rel_1", kind, strings.NewReader(doc), "per_1")
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		if files, err := s.CompiledFiles(ctx, "ten_a", "rel_1"); files != nil || err != nil || hash("ten_a") != "" {
			t.Fatalf("without evidence: %v, %v, %q", files, err, hash("ten_a"))
		}
		one := add(CompiledFiles, "init/main.c\nfs/open.c\n")
		before := hash("ten_a")
		if again := add(CompiledFiles, "fs/open.c\ninit/main.c\n"); again.ID != one.ID || hash("ten_a") != before {
			t.Errorf("another order is other evidence: %+v", again)
		}
		add(KernelConfig, "CONFIG_NET=y\n")
		both := hash("ten_a")
		two := add(CompiledFiles, "init/main.c\n") // within the same millisecond
		if before == "" || both == before || hash("ten_a") == both || two.Entries != 1 || hash("ten_b") != "" {
			t.Errorf("hashes %q, %q, %q; another tenant %q", before, both, hash("ten_a"), hash("ten_b"))
		}
		files, err := s.CompiledFiles(ctx, "ten_a", "rel_1")
		if err != nil || len(files) != 1 || !files["init/main.c"] {
			t.Errorf("compiled files %v, %v; the newest document counts", files, err)
		}
		if list, err := s.Evidence(ctx, "ten_a", "rel_1"); err != nil || len(list) != 2 || list[0].Document.SHA512 == "" {
			t.Errorf("evidence %+v, %v", list, err)
		}
		_, f, err := s.OriginalEvidence(ctx, "ten_a", "rel_1", CompiledFiles)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if raw, err := io.ReadAll(f); string(raw) != "init/main.c\n" {
			t.Errorf("original %q, %v", raw, err)
		}
		if _, err := s.AddEvidence(ctx, "ten_a", "rel_1", "photo", strings.NewReader("x"), "per_1"); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("an unknown kind: %v", err)
		}
		if _, err := s.AddEvidence(ctx, "ten_a", "rel_1", CompiledFiles, strings.NewReader("x.c\n"), "per_1"); !problem.Is(err, problem.KindInvalid) {
			t.Errorf("half a kernel: %v", err)
		}
		if _, err := db.RunDue(ctx); err != nil || events.Load() != 3 {
			t.Errorf("%d events, %v; want one per change", events.Load(), err)
		}
	})
}

func FuzzParseCompiled(f *testing.F) {
	for _, seed := range []string{commands, buildLog, "init/main.c\nnet/ipv4/route.c\n", "/a/init/main.c\n/a/../b/x.c\n", "[]", "[{}]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		files, err := ParseCompiled(strings.NewReader(doc))
		if err != nil {
			if problem.Of(err).Kind == problem.KindInternal {
				t.Fatalf("not a clear refusal: %v", err)
			}
			return
		}
		if !slices.Contains(files, anchor) || !slices.IsSorted(files) {
			t.Fatalf("files %q", files)
		}
		for _, p := range files {
			if p == "" || p[0] == '/' || strings.HasPrefix(p, "../") {
				t.Fatalf("a path outside of the tree: %q", p)
			}
		}
	})
}

func FuzzParseKernelConfig(f *testing.F) {
	for _, seed := range []string{"CONFIG_NET=y\n", "# CONFIG_NET is not set\nCONFIG_A=\"b\"\n", "CONFIG_A="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		if _, err := ParseKernelConfig(strings.NewReader(doc)); err != nil && problem.Of(err).Kind == problem.KindInternal {
			t.Fatalf("not a clear refusal: %v", err)
		}
	})
}
