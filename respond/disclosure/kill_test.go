// SPDX-License-Identifier: AGPL-3.0-only

package disclosure

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/store/blob"
	"github.com/openthings-platform/openthings/store/storetest"
)

// killFiles is how many files each report of the test that kills carries.
const killFiles = 2

// killFile is a file that says of itself whether it is whole: its name is the digest of its content.
func killFile() Upload {
	body := make([]byte, 64<<10)
	for i := range body {
		body[i] = byte(rand.IntN(256))
	}
	sum := sha256.Sum256(body)
	return Upload{Name: hex.EncodeToString(sum[:]), Body: body}
}

// dyingBlobs are the real ones in a process that is killed at the count-th look at them: before a file is put when odd, after
// it when even. 0 never dies.
type dyingBlobs struct {
	blob.Store
	count int
}

func (d *dyingBlobs) Put(ctx context.Context, r io.Reader, most int64) (string, int64, error) {
	d.step()
	digest, size, err := d.Store.Put(ctx, r, most)
	d.step()
	return digest, size, err
}

func (d *dyingBlobs) step() {
	if d.count--; d.count == 0 {
		die()
	}
}

func die() {
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(err)
	}
	select {} // until it arrives
}

// TestKillChild is the process that is killed: it takes reports in, one after the other, and says each answer.
func TestKillChild(t *testing.T) {
	url := os.Getenv("DISCLOSURE_CHILD_DATABASE")
	if url == "" {
		return // not a test of its own
	}
	dies, err := strconv.Atoi(os.Getenv("DISCLOSURE_CHILD_DIES"))
	if err != nil {
		t.Fatal(err)
	}
	h := openHouse(t, url, os.Getenv("DISCLOSURE_CHILD_DIR"), clock.NewHand(saturday))
	h.cfg.Blobs = &dyingBlobs{h.cfg.Blobs, dies}
	fmt.Println("open")
	for {
		got := h.sent(Intake{Sending: Sending{Exploited: "yes", Files: []Upload{killFile(), killFile()}}})
		_, secret, _ := strings.Cut(got.Status, "/status/")
		fmt.Println("answered", got.ID, secret)
		if _, err := h.addition(t.Context(), maker, secret, Sending{Files: []Upload{killFile()}}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("added", got.ID, secret)
	}
}

// killed starts the process and sees it die: at that look at the blobs, or else so long after its first answer.
func killed(t *testing.T, url, dir string, dies int, after time.Duration) (answered, added map[string]string) {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKillChild$") // Cancel sends SIGKILL
	cmd.Env = append(os.Environ(), "DISCLOSURE_CHILD_DATABASE="+url, "DISCLOSURE_CHILD_DIR="+dir, "DISCLOSURE_CHILD_DIES="+strconv.Itoa(dies), "GORACE=exitcode=66",
		"TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complained bytes.Buffer
	cmd.Stderr = &complained
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answered, added = map[string]string{}, map[string]string{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 3 {
			continue
		}
		if dies == 0 && len(answered) == 0 {
			defer time.AfterFunc(after, kill).Stop()
		}
		switch f[0] {
		case "answered":
			answered[f[1]] = f[2]
		case "added":
			added[f[1]] = f[2]
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && ctx.Err() == nil && (!errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) {
		t.Fatalf("the process failed by itself: %v\n%s", err, complained.String())
	}
	return answered, added
}

// TestKillNineDuringIntake kills the platform between any two effects of the intake and at random moments. Whatever was
// answered with an id is in the desk, whatever is in the desk has an id, and both have every file of theirs, whole.
func TestKillNineDuringIntake(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		dir := t.TempDir()
		openHouse(t, url, dir, clock.NewHand(saturday)) // makes the product
		answered, added, kills := map[string]string{}, map[string]string{}, 0
		for dies := range 2*(killFiles+1) + 1 { // 0: at random
			for range map[bool]int{true: 6, false: 1}[dies == 0] {
				a, b := killed(t, url, dir, dies, time.Duration(rand.IntN(80))*time.Millisecond)
				kills++
				for id, secret := range a {
					answered[id] = secret
				}
				for id, secret := range b {
					added[id] = secret
				}
			}
		}
		if len(answered) < kills/2 {
			t.Fatalf("%d answers before %d kills", len(answered), kills)
		}
		h := openHouse(t, url, dir, clock.NewHand(saturday))
		h.inDesk(answered, added, kills)
	})
}

// inDesk compares the desk with what finders were told.
func (h *house) inDesk(answered, added map[string]string, kills int) {
	h.t.Helper()
	t := h.t
	var bare int
	h.must(h.db.QueryRow(t.Context(), `SELECT count(*) FROM disclosure_report r WHERE id = '' OR NOT EXISTS (SELECT 1 FROM disclosure_event e WHERE e.report = r.id AND e.seq = 1)
		OR NOT EXISTS (SELECT 1 FROM disclosure_finder f WHERE f.report = r.id)`).Scan(&bare))
	if bare != 0 {
		t.Fatalf("%d reports have no id, no beginning or no finder", bare)
	}
	var fs []file
	h.must(h.db.View(t.Context(), func(tx *store.Tx) (err error) { fs, err = files(tx, maker, `id <> $2`, ""); return err }))
	if over := len(fs) - len(answered); over < 0 || over > kills {
		t.Errorf("%d reports in the desk, %d answered, %d kills", len(fs), len(answered), kills)
	}
	kept := map[string]file{}
	for _, f := range fs {
		kept[f.ID] = f
		read, err := h.Open(ann, f.ID)
		h.must(err)
		whole := 0
		for _, sent := range read.Sent {
			for _, name := range sent.Words.Files {
				b, err := h.Attachment(ann, f.ID, name.ID, false)
				h.must(err)
				if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != name.Name {
					t.Errorf("a file of %s is not what was sent", f.ID)
				}
				whole++
			}
		}
		if rows := len(h.seen(ann, f.ID).Attachments); whole < killFiles || rows != whole {
			t.Errorf("%s names %d files and has %d", f.ID, whole, rows)
		}
		if f.state().Signal == "" {
			t.Errorf("%s was seen exploited and asks for no assessment", f.ID)
		}
	}
	for id, secret := range answered {
		if f, err := h.behind(t.Context(), maker, secret); err != nil || f.ID != id {
			t.Errorf("the link that came with %s leads to %q, %v", id, f.ID, err)
		}
	}
	for id := range added {
		if !slices.ContainsFunc(kept[id].Rows, func(r row) bool { return r.Kind == FinderAdded }) {
			t.Errorf("what was added to %s is lost", id)
		}
	}
}
