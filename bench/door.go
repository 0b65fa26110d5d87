// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/gateway"
	"github.com/openthings-platform/openthings/identity/embedded"
	"github.com/openthings-platform/openthings/seal"
	"github.com/openthings-platform/openthings/store"
	"github.com/openthings-platform/openthings/telemetry"
)

// doorEnv has this program be a device door instead: the gateway with the real register and the real inbox on SQLite, in a
// process of its own whose memory can be measured. Thousands of devices are in its register from the start, which a
// whole platform would have to enrol one by one. Its value is the folder; doorDevices is how many.
const (
	doorEnv     = "OPENTHINGS_BENCH_DOOR"
	doorDevices = "OPENTHINGS_BENCH_DEVICES"
)

// doorFleet is the file by which the door hands out what its devices need.
type doorFleet struct {
	Addr  string
	Roots []byte // PEM
	Certs [][]byte
	Keys  [][]byte // PKCS #8
}

// doorState is what the door says when it is asked, after a garbage collection.
type doorState struct {
	Records int64 // in the inbox, on disk; nothing compacts it
	Load    gateway.Load
}

// beDoor serves until stdin ends; each line on it asks for a doorState.
func beDoor(ctx context.Context, dir string) error {
	n, err := strconv.Atoi(os.Getenv(doorDevices))
	if err != nil {
		return err
	}
	keys, err := seal.Open(filepath.Join(dir, "keys"), clock.System)
	if err != nil {
		return err
	}
	issuer, err := embedded.Open(embedded.Config{Dir: filepath.Join(dir, "ca"), Keys: keys, Name: "Bench"})
	if err != nil {
		return err
	}
	records, err := store.Open(ctx, store.Config{URL: "sqlite://" + filepath.Join(dir, "telemetry.db"), Schema: []store.Migrations{seal.Schema, telemetry.Schema}})
	if err != nil {
		return err
	}
	defer records.Close()
	inbox := telemetry.New(telemetry.Config{DB: records, Platform: records, Keys: keys})
	d, err := openNode(ctx, "sqlite://"+filepath.Join(dir, "platform.db"), filepath.Join(dir, "a"), issuer, inbox.Append)
	if err != nil {
		return err
	}
	defer d.close()
	_, certs, err := d.fleet(ctx, n)
	if err != nil {
		return err
	}
	f := doorFleet{Addr: d.addr, Roots: d.svc.Roots()}
	for _, c := range certs {
		key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			return err
		}
		f.Certs, f.Keys = append(f.Certs, c.Certificate[0]), append(f.Keys, key)
	}
	file, err := os.Create(filepath.Join(dir, "fleet"))
	if err != nil {
		return err
	}
	if err := errors.Join(gob.NewEncoder(file).Encode(f), file.Close()); err != nil {
		return err
	}
	certs, f = nil, doorFleet{}
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); ; {
		for range 4 { // pools keep what they hold for two collections, stacks shrink by half at each
			runtime.GC()
		}
		debug.FreeOSMemory()
		depth, err := inbox.Depth(ctx)
		if err != nil {
			return err
		}
		if err := out.Encode(doorState{depth.Records, d.gate.Load()}); err != nil {
			return err
		}
		if !in.Scan() {
			return in.Err()
		}
	}
}

// bareDoor is a running one, seen from outside.
type bareDoor struct {
	broker
	dir   string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *json.Decoder
}

func startDoor(ctx context.Context, devices int) (*bareDoor, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(benchDir(), "bench-door-")
	if err != nil {
		return nil, err
	}
	d := &bareDoor{dir: dir, cmd: exec.CommandContext(ctx, self)}
	d.cmd.Env = append(os.Environ(), doorEnv+"="+dir, fmt.Sprintf("%s=%d", doorDevices, devices))
	d.cmd.Stderr = os.Stderr
	if d.stdin, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.out = json.NewDecoder(out)
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	d.pid = d.cmd.Process.Pid
	if err := d.read(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// read waits until the door serves and takes its devices' certificates over.
func (d *bareDoor) read() error {
	var s doorState
	if err := d.out.Decode(&s); err != nil {
		return fmt.Errorf("the door did not start: %w", err)
	}
	file, err := os.Open(filepath.Join(d.dir, "fleet"))
	if err != nil {
		return err
	}
	defer file.Close()
	var f doorFleet
	if err := gob.NewDecoder(file).Decode(&f); err != nil {
		return err
	}
	d.addr, d.roots = f.Addr, x509.NewCertPool()
	d.roots.AppendCertsFromPEM(f.Roots)
	for i, der := range f.Certs {
		key, err := x509.ParsePKCS8PrivateKey(f.Keys[i])
		if err != nil {
			return err
		}
		d.certs = append(d.certs, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
	}
	return nil
}

// state asks the door how it is, after a garbage collection.
func (d *bareDoor) state() (s doorState, err error) {
	if _, err := io.WriteString(d.stdin, "\n"); err != nil {
		return s, err
	}
	return s, d.out.Decode(&s)
}

func (d *bareDoor) close() {
	d.stdin.Close()
	_ = d.cmd.Wait() // whatever it says, it is gone
	os.RemoveAll(d.dir)
}

// benchDir is on the disk that data would be on; /tmp may be memory.
func benchDir() string {
	if st, err := os.Stat("/var/tmp"); err == nil && st.IsDir() {
		return "/var/tmp"
	}
	return ""
}

// rss is the resident memory of a process in kB, now and at most (proc_pid_status(5)).
func rss(pid int) (now, most float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "VmRSS:" && f[0] != "VmHWM:" {
			continue
		}
		n, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			return 0, 0, err
		}
		if f[0] == "VmRSS:" {
			now = n
		} else {
			most = n
		}
	}
	return now, most, nil
}

// calm waits until the process's memory does not fall any more, for those that cannot be asked to collect.
func calm(ctx context.Context, pid int) (float64, error) {
	last, _, err := rss(pid)
	for range 20 {
		if err != nil {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
		now, _, err := rss(pid)
		if err != nil || now >= last {
			return now, err
		}
		last = now
	}
	return last, nil
}
