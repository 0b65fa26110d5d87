// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openthings-platform/openthings/testpeers"
)

// TestStart executes docs/start.md.
func TestStart(t *testing.T) {
	p := openPage(t, "start.md")
	out := p.run(t, "openthings", "openthings-agent", "openthings-verify")
	for _, want := range []string{"PROVEN:", "chain whole:", "1.1.0", "CVE-2023-44487:"} {
		if !strings.Contains(out, want) {
			t.Errorf("the reader does not see %q", want)
		}
	}
}

// TestEnrolment executes docs/enrolment.md.
func TestEnrolment(t *testing.T) {
	out := openPage(t, "enrolment.md").run(t, "openthings")
	for _, want := range []string{"PROVEN:", "202", "rule: enroll.unclaimed", "is approved", `"durable":1`, "Maker: active", "lot 7", "next.pem: revoked", "is refused since", "chain whole:"} {
		if !strings.Contains(out, want) {
			t.Errorf("the reader does not see %q", want)
		}
	}
}

// page is a page of docs whose sh blocks are executed in one shell, in order. Three things differ from what a reader
// does: the programs are built by go instead of "make build", ports are free ones, and a block marked "again" is
// repeated for the reader, for at most a minute.
type page struct {
	script string
	dir    string // where the shell stands; bin and demo are beside it, as in the repository
	env    []string
}

func openPage(t *testing.T, name string) *page {
	t.Helper()
	p := readPage(t, name)
	p.replace(t, "\nmake build\n", "\n")
	return p
}

// readPage is openPage for a page that builds nothing.
func readPage(t *testing.T, name string) *page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository(t), "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	p := &page{dir: t.TempDir(), env: os.Environ(),
		script: "set -eu -o pipefail\nagain() { end=$((SECONDS + 60)); until \"$@\"; do [ $SECONDS -lt $end ] || exit 1; sleep 0.2; done; }\n"}
	blocks, err := shellBlocks(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range blocks {
		p.script += fmt.Sprintf("echo '--- block %d'\n", i+1)
		if b.again {
			// set -e does not reach into a condition, so each line of such a block is one link of a chain.
			p.script += fmt.Sprintf("block%d() { %s; }\nagain block%d\n", i+1, strings.Join(strings.Split(strings.TrimSpace(b.text), "\n"), " && "), i+1)
			continue
		}
		p.script += b.text
	}
	for name, port := range map[string]string{"LISTEN": "8443", "DEVICE_LISTEN": "8444", "MQTT_LISTEN": "8883", "COAP_LISTEN": "5684", "HEALTH_LISTEN": "8480"} {
		addr := freeAddress(t)
		p.script = strings.ReplaceAll(p.script, "localhost:"+port, addr)
		p.env = append(p.env, "OPENTHINGS_"+name+"="+addr)
	}
	return p
}

// replace puts the test's own in the place of what the page says, which it must say.
func (p *page) replace(t *testing.T, old, with string) {
	t.Helper()
	if !strings.Contains(p.script, old) {
		t.Fatalf("the page does not say %q", strings.TrimSpace(old))
	}
	p.script = strings.ReplaceAll(p.script, old, with)
}

// run builds the programs, executes the page and returns what the reader sees.
func (p *page) run(t *testing.T, programs ...string) string {
	t.Helper()
	for link, to := range map[string]string{"bin": build(t, programs...), "demo": filepath.Join(repository(t), "demo")} {
		if err := os.Symlink(to, filepath.Join(p.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash")
	cmd.Dir, cmd.Env, cmd.Stdin = p.dir, p.env, strings.NewReader(p.script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 20 * time.Second
	err := cmd.Run()
	// What a failed page left running goes with its shell.
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // usually nobody is left
	if err != nil {
		logs, _ := filepath.Glob(filepath.Join(p.dir, "*", "*.log"))
		for _, l := range logs {
			b, _ := os.ReadFile(l)
			fmt.Fprintf(&out, "%s:\n%s\n", l, b)
		}
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Log(out.String()) // go test -v shows what a reader sees
	return out.String()
}

type block struct {
	text  string
	again bool
}

// shellBlocks are the fenced sh blocks of a Markdown page.
func shellBlocks(page string) (out []block, err error) {
	for rest := page; ; {
		_, after, ok := strings.Cut(rest, "\n```")
		if !ok {
			return out, nil
		}
		info, after, _ := strings.Cut(after, "\n")
		text, after, ok := strings.Cut(after, "\n```")
		switch {
		case !ok:
			return nil, fmt.Errorf("a fence is not closed: %.40s", after)
		case info == "sh" || info == "sh again":
			out = append(out, block{text + "\n", info == "sh again"})
		default:
			return nil, fmt.Errorf("a block is marked %q: this page has sh and sh again only", info)
		}
		rest = after
	}
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := testpeers.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("localhost:%d", port)
}
