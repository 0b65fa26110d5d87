// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/wire"
	"github.com/openthings-platform/openthings/wire/mqtt"
)

// smallDisk returns the program that starts a child on a disk of its own, mounted at dir for it alone: an ext4 in a file
// on the real disk where this process may mount one (root), else a tmpfs in a user namespace, which is full in the same way.
func smallDisk(t *testing.T, dir string, megabytes int) []string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk")
	loop := []string{"unshare", "-m", "sh", "-ec", `mount -o loop "$1" "$2"; shift 2; exec "$@"`, "sh", image, dir}
	tmpfs := []string{"unshare", "-Urm", "sh", "-ec", `mount -t tmpfs -o mode=0700,size=` + fmt.Sprint(megabytes) + `m none "$1"; shift; exec "$@"`, "sh", dir}
	var said []byte
	for _, c := range [][]string{{"truncate", "-s", fmt.Sprintf("%dM", megabytes), image}, {"/sbin/mkfs.ext4", "-q", "-m", "0", image}, append(loop, "true")} {
		out, err := exec.Command(c[0], c[1:]...).CombinedOutput()
		if err != nil {
			said = fmt.Appendf(said, "%s: %v %s; ", c[0], err, out)
		}
	}
	if said == nil {
		t.Logf("the disk is an ext4 of %d MB in a file, mounted through loop", megabytes)
		return loop
	}
	if out, err := exec.Command(tmpfs[0], append(tmpfs[1:], "true")...).CombinedOutput(); err != nil {
		t.Fatalf("neither a loop device (%s) nor a tmpfs in a user namespace (%v %s) can be mounted; run this as root or allow user namespaces", said, err, out)
	}
	t.Logf("the disk is a tmpfs of %d MB in a user namespace, since no loop device can be mounted: %s", megabytes, said)
	return tmpfs
}

// diskCommand does what the parent asks of the child's disk: "fill DIR LEAVE" takes all its room but LEAVE bytes, "free DIR"
// gives it back.
func diskCommand(line string, s *Service) error {
	var what, dir string
	var leave int64
	fmt.Sscan(line, &what, &dir, &leave)
	ballast := filepath.Join(dir, "ballast")
	switch what {
	case "fill":
		f, err := os.OpenFile(ballast, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		for block := make([]byte, 1<<16); len(block) > 0; {
			var st syscall.Statfs_t
			if err := syscall.Statfs(dir, &st); err != nil {
				return err
			}
			if int64(st.Bavail)*st.Bsize-int64(len(block)) < leave {
				block = block[:len(block)/2]
			} else if _, err := f.Write(block); err != nil {
				block = block[:len(block)/2] // full
			}
		}
		return f.Sync()
	case "free":
		return os.Remove(ballast)
	case "business": // what people do, and the log: it goes to the platform's file on the same disk
		return s.cfg.Platform.WriteFirst(context.Background(), func(tx *store.Tx) error { return s.cfg.Keys.NewSubject(tx, "ten", store.NewID("dev")) })
	}
	return fmt.Errorf("unknown command %q", line)
}

// The disk fills up while devices publish: in the commit of the inbox, in compaction and in SQLite's checkpoints. MQTT 5
// devices get PUBACK 0x97 with the reason, a 3.1.1 device no PUBACK and the end of its connection; nobody gets a false
// receipt. When there is room again, receipts go on without a restart, and everything acknowledged is there.
func TestM03_DiskFull(t *testing.T) {
	dir := t.TempDir()
	l := newLoad(newParty(t, 4))
	l.pad = 4000
	d := startDoor(t, l.party, sqlitePlace(dir), smallDisk(t, dir, 24)...)
	stop := l.background(t.Context(), d.addr)
	for range rounds(2) {
		if !l.more(200, long) {
			t.Fatal("no receipts came")
		}
		d.tell("fill " + dir + " 0")
		refused, acked := l.failed.Load()+100, l.acks.Load()
		for tick := time.NewTicker(time.Millisecond); l.failed.Load() < refused; <-tick.C {
			if l.acks.Load() > acked+3000 { // more than fits into what the files had taken before
				t.Fatal("receipts go on while the disk is full")
			}
		}
		if got := l.old(t, d.addr); got != "the end" {
			t.Errorf("a 3.1.1 device got %s on a full disk", got)
		}
		d.tell("free " + dir)
	}
	if !l.more(200, long) {
		t.Error("no receipts come after there is room again")
	}
	stop()
	if got := l.old(t, d.addr); got != "a receipt" {
		t.Errorf("a 3.1.1 device got %s when there was room again", got)
	}
	for reason := range reasons(l) {
		// The 3.1.1 device is dev_0 with another client: it takes over.
		if reason != mqtt.QuotaExceeded && reason != mqtt.UnspecifiedError && reason != mqtt.SessionTakenOver {
			t.Errorf("devices were told %s", reason)
		}
	}
	if !reasons(l)[mqtt.QuotaExceeded] {
		t.Error("no device was told that there is no room")
	}
	v := l.judge(t, sqlitePlace(d.copy(dir)))
	t.Logf("%d sent, %d acknowledged, %d found, %d refused", v.Sent, v.Acked, v.Found, l.failed.Load())
	if err := v.Err(); err != nil {
		t.Error(err)
	}
}

// Below the reserve telemetry is refused by the rule's name while the platform's own writes go on, and taken again above it.
func TestM03_ReserveIsForRevocationsAndTheLog(t *testing.T) {
	dir := t.TempDir()
	l := newLoad(newParty(t, 2))
	at := sqlitePlace(dir)
	at.Reserve = 8 << 20
	d := startDoor(t, l.party, at, smallDisk(t, dir, 24)...)
	c, err := l.dial(t.Context(), d.addr, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say := func(n uint64) error {
		topic, body := l.message(n)
		return c.Publish(t.Context(), wire.Root+topic, body)
	}
	if err := say(1); err != nil {
		t.Fatal(err)
	}
	d.tell("fill " + dir + " 4000000")
	if err := say(2); err == nil || !strings.Contains(err.Error(), RuleReserve) {
		t.Errorf("below the reserve a message was answered by %v", err)
	}
	for range 50 {
		d.tell("business")
	}
	d.tell("free " + dir)
	if err := say(2); err != nil {
		t.Errorf("above the reserve: %v", err)
	}
}

func reasons(l *load) map[mqtt.Reason]bool {
	out := map[mqtt.Reason]bool{}
	l.reason.Range(func(k, _ any) bool { out[k.(mqtt.Reason)] = true; return true })
	return out
}

// old publishes one message as an MQTT 3.1.1 device and says what came back. It takes a number that no other device uses.
func (l *load) old(t *testing.T, addr string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: l.roots, ServerName: "localhost", Certificates: l.certs[:1]})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l.olds++
	line, n := "dev_0 old", l.olds
	var b []byte
	for _, p := range []mqtt.Packet{
		&mqtt.Connect{Version: mqtt.V4, CleanStart: true, ClientID: "old", KeepAlive: 60},
		&mqtt.Publish{QoS: 1, ID: 1, Topic: wire.Root + "tele/old", Payload: fmt.Appendf(nil, `{"ts":%d,"boot":1,"seq":%d,"values":{"n":%d}}`, l.base.UnixMilli()+int64(n), n, n)},
	} {
		if b, err = mqtt.Append(b, mqtt.V4, p); err != nil {
			t.Fatal(err)
		}
	}
	l.Sent(line, n)
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	r := mqtt.NewReader(bufio.NewReader(conn), 1<<16)
	for {
		header, body, err := r.Next()
		if err != nil {
			return "the end"
		}
		p, err := mqtt.Decode(mqtt.V4, header, body)
		if err != nil {
			t.Fatal(err)
		}
		if a, ok := p.(*mqtt.Ack); ok && a.Kind == mqtt.PUBACK {
			l.Acked(line, n)
			return "a receipt"
		}
	}
}

// copy stops the child, takes what is on its disk into a folder of this process, and kills it.
func (d *door) copy(dir string) string {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		d.t.Fatal(err)
	}
	to := d.t.TempDir()
	if out, err := exec.Command("cp", "-a", fmt.Sprintf("/proc/%d/root%s/.", d.cmd.Process.Pid, dir), to).CombinedOutput(); err != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Chmod(to, 0o700); err != nil {
		d.t.Fatal(err)
	}
	d.kill()
	return to
}
