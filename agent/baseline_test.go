// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"github.com/openthings-platform/openthings/wire"
)

// fakeRoot writes files below a folder that a Probe takes for "/".
func fakeRoot(t *testing.T, files map[string]string) Probe {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return Probe{Root: root}
}

const (
	tcpHead = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	vars    = "sys/firmware/efi/efivars/"
)

// TestBaselineUnknown: a device on which nothing can be seen claims nothing, and the platform reads that.
func TestBaselineUnknown(t *testing.T) {
	r := fakeRoot(t, nil).Report(t.Context(), wire.RootNone)
	want := wire.BaselineReport{Agent: Version, Root: wire.RootNone, TLS: "1.3"}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("it claims %+v, want %+v", r, want)
	}
}

func TestBaselineReport(t *testing.T) {
	p := fakeRoot(t, map[string]string{
		vars + "SecureBoot-" + efiGlobal: "\x06\x00\x00\x00\x01",
		vars + "SetupMode-" + efiGlobal:  "\x06\x00\x00\x00\x00",
		// 0.0.0.0:22, 127.0.0.1:631 and an established connection from :443
		"proc/net/tcp": tcpHead + "   0: 00000000:0016 00000000:0000 0A 0 0 0\n   1: 0100007F:0277 00000000:0000 0A 0 0 0\n   2: 0100000A:01BB 0200000A:C000 01 0 0 0\n",
		// [::]:8080, [::1]:9000, and ::ffff:127.0.0.1:9001
		"proc/net/tcp6": tcpHead + "   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0\n" +
			"   1: 00000000000000000000000001000000:2328 00000000000000000000000000000000:0000 0A 0\n" +
			"   2: 0000000000000000FFFF00000100007F:2329 00000000000000000000000000000000:0000 0A 0\n",
		"proc/net/udp":                        tcpHead + "   0: 00000000:14E9 00000000:0000 07 0 0 0\n   1: 0100000A:D431 08080808:0035 01 0 0 0\n",
		"proc/cmdline":                        "root=/dev/mmcblk0p2 console=ttyAMA0,115200 quiet\n",
		"proc/sys/kernel/sysrq":               "176\n",
		"proc/sys/kernel/yama/ptrace_scope":   "1\n",
		"proc/sys/kernel/kexec_load_disabled": "1\n",
		"sys/fuses/jtag":                      "closed\n",
		"sys/fuses/odd":                       "perhaps\n",
		"etc/shadow":                          "root:*:1:0:99999:7:::\nadmin:$6$known:1::::::\nguest::1::::::\ndaemon:!:1::::::\n",
		"proc/self/status":                    "Name:\tagent\nUid:\t1000\t1000\t1000\t1000\nNoNewPrivs:\t1\nCapEff:\t0000000000000000\n",
	})
	p.Debug = map[string]string{"jtag": "/sys/fuses/jtag", "odd": "/sys/fuses/odd", "absent": "/sys/fuses/absent", "No Name": "/sys/fuses/jtag"}
	p.DefaultHashes = []string{"$6$known"}
	got := p.Report(t.Context(), wire.RootTPM)
	want := wire.BaselineReport{Agent: Version, Root: wire.RootTPM, SecureBoot: wire.BootOn, TLS: "1.3",
		Ports:       &[]string{"tcp/22", "tcp/8080", "udp/5353"},
		Debug:       map[string]string{"kgdb": "closed", "uart": "open", "sysrq": "open", "ptrace": "closed", "kexec": "closed", "jtag": "closed"},
		Credentials: &[]string{"admin", "guest"},
		Privileges:  map[string]bool{"agent-unprivileged": true, "agent-no-new-privileges": true},
	}
	if !reflect.DeepEqual(got, want) {
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		t.Errorf("\n got %s\nwant %s", a, b)
	}
	raw, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.ParseBaselineReport(raw); err != nil {
		t.Errorf("the platform refuses the report: %v", err)
	}
}

func TestSecureBoot(t *testing.T) {
	on, off := "\x06\x00\x00\x00\x01", "\x06\x00\x00\x00\x00"
	for _, row := range []struct{ name, boot, setup, want string }{
		{"on", on, off, wire.BootOn},
		{"off", off, off, wire.BootOff},
		{"anybody may enrol keys", on, on, wire.BootOff},
		{"setup mode unknown", on, "", ""},
		{"torn", "\x06", off, ""},
		{"no such variable", "", off, wire.BootUnsupported},
	} {
		files := map[string]string{vars + "Other-" + efiGlobal: on}
		if row.boot != "" {
			files[vars+"SecureBoot-"+efiGlobal] = row.boot
		}
		if row.setup != "" {
			files[vars+"SetupMode-"+efiGlobal] = row.setup
		}
		if got := fakeRoot(t, files).secureBoot(); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

// TestDefaultCredentials: passwords that nobody here can judge are never told as "none is a factory password".
func TestDefaultCredentials(t *testing.T) {
	program := filepath.Join(t.TempDir(), "check")
	for _, row := range []struct {
		name, shadow, program string
		known                 []string
		want                  *[]string
	}{
		{name: "unreadable"},
		{name: "all locked", shadow: "root:*:\ndaemon:!!:\n", want: &[]string{}},
		{name: "a password nobody can judge", shadow: "root:$6$x:\n"},
		{name: "an open account beside it", shadow: "root:$6$x:\nguest::\n", want: &[]string{"guest"}},
		{name: "judged by the shipped hashes", shadow: "root:$6$x:\n", known: []string{"$6$y"}, want: &[]string{}},
		{name: "judged by a program", shadow: "root:$6$x:\n", program: "echo web-admin\n", want: &[]string{"web-admin"}},
		{name: "a program without a shadow file", program: "exit 0\n", want: &[]string{}},
		{name: "a program that fails", shadow: "root:*:\n", program: "exit 3\n"},
	} {
		files := map[string]string{}
		if row.shadow != "" {
			files["etc/shadow"] = row.shadow
		}
		p := fakeRoot(t, files)
		p.DefaultHashes = row.known
		if row.program != "" {
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+row.program), 0o700); err != nil {
				t.Fatal(err)
			}
			p.Credentials = program
		}
		if got := p.Report(t.Context(), "").Credentials; !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

// TestBaselineOfThisMachine: on a real kernel the report names a port that was just opened, and none on loopback.
func TestBaselineOfThisMachine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the tables of /proc are Linux's")
	}
	inside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	_, port, err := net.SplitHostPort(inside.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r := Probe{}.Report(context.Background(), wire.RootNone)
	if r.Ports == nil || slices.Contains(*r.Ports, "tcp/"+port) {
		t.Errorf("a port on loopback is told as open, or nothing was seen: %v", r.Ports)
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := endpoint("0100007F:" + strconv.FormatInt(int64(n), 16)); err != nil || !e.Addr().IsLoopback() || int(e.Port()) != n {
		t.Errorf("%v, %v", e, err)
	}
	if _, err := listening("tcp", table); err != nil {
		t.Errorf("/proc/net/tcp: %v", err)
	}
	if r.Privileges == nil || r.Privileges["agent-unprivileged"] && os.Geteuid() == 0 {
		t.Errorf("privileges %v as user %d", r.Privileges, os.Geteuid())
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.ParseBaselineReport(raw); err != nil {
		t.Errorf("the platform refuses the report of this machine: %v", err)
	}
	t.Logf("%s", raw)
}
