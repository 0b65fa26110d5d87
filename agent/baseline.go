// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/openthings-platform/openthings/wire"
)

// Probe is how a device looks at itself. What it cannot see it leaves out of the report: unknown is never told as good.
type Probe struct {
	Root string // before every path below; empty: "/"

	// Debug names further debug interfaces and the file that tells of each: 1, y, on, open or enabled, or the opposite. So
	// a fuse or a GPIO that closes JTAG becomes part of the report.
	Debug map[string]string
	// DefaultHashes are password fields of /etc/shadow that the maker has ever shipped.
	DefaultHashes []string
	// Credentials is a program that prints one account a line that still has a factory password, and exits with 0.
	Credentials string
}

// Report looks at the device now. Keys is one of wire.Root…, as the key store knows it.
func (p Probe) Report(ctx context.Context, keys string) wire.BaselineReport {
	r := wire.BaselineReport{Agent: Version, Root: keys, SecureBoot: p.secureBoot(), Debug: p.debug(), TLS: "1.3", Privileges: p.privileges()}
	if ports, err := p.ports(); err == nil {
		r.Ports = &ports
	}
	if accounts, err := p.credentials(ctx); err == nil {
		r.Credentials = &accounts
	}
	return r
}

func (p Probe) path(name string) string { return filepath.Join("/", p.Root, name) }

// read returns a small file without white space around it.
func (p Probe) read(name string) (string, error) {
	b, err := os.ReadFile(p.path(name))
	return strings.TrimSpace(string(b)), err
}

// efiGlobal is the namespace of UEFI's own variables (UEFI 2.10, 3.3).
const efiGlobal = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

// secureBoot reads UEFI's variables; in efivarfs four bytes of attributes stand before the value. A device without UEFI
// says nothing: other verified boots leave no common trace.
func (p Probe) secureBoot() string {
	const vars = "sys/firmware/efi/efivars"
	if left, err := os.ReadDir(p.path(vars)); err != nil || len(left) == 0 {
		return "" // not UEFI, or not mounted
	}
	value := func(name string) (byte, error) {
		b, err := os.ReadFile(p.path(filepath.Join(vars, name+"-"+efiGlobal)))
		if err == nil && len(b) != 5 {
			err = errors.New("not one byte")
		}
		if err != nil {
			return 0, err
		}
		return b[4], nil
	}
	on, err := value("SecureBoot")
	if errors.Is(err, fs.ErrNotExist) {
		return wire.BootUnsupported
	}
	if err != nil {
		return ""
	}
	if setup, err := value("SetupMode"); on == 1 && err == nil && setup == 0 {
		return wire.BootOn
	} else if on == 1 && err != nil {
		return "" // in setup mode anybody may enrol keys
	}
	return wire.BootOff
}

// ports lists what listens beyond loopback, by the kernel's own tables.
func (p Probe) ports() ([]string, error) {
	seen := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := os.ReadFile(p.path("proc/net/" + table))
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(table, "6") {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		found, err := listening(table[:3], b)
		if err != nil {
			return nil, fmt.Errorf("/proc/net/%s: %w", table, err)
		}
		for _, port := range found {
			seen[port] = true
		}
	}
	out := make([]string, 0, len(seen))
	for port := range seen {
		out = append(out, port)
	}
	slices.Sort(out)
	return out, nil
}

// listening reads one table of /proc/net: sockets in state LISTEN (0A), or UDP sockets without a peer (07).
func listening(proto string, table []byte) ([]string, error) {
	state := "0A"
	if proto == "udp" {
		state = "07"
	}
	var out []string
	for n, lines := 0, bufio.NewScanner(bytes.NewReader(table)); lines.Scan(); n++ {
		f := strings.Fields(lines.Text())
		if n == 0 || len(f) == 0 {
			continue // the heading
		}
		if len(f) < 4 {
			return nil, errors.New("a line is too short")
		}
		local, err := endpoint(f[1])
		if err != nil {
			return nil, err
		}
		if f[3] == state && !local.Addr().IsLoopback() && local.Port() != 0 {
			out = append(out, fmt.Sprintf("%s/%d", proto, local.Port()))
		}
	}
	return out, nil
}

// endpoint reads an address of /proc/net: 32-bit words in the byte order of the machine (all that Go runs Linux on
// and that this agent is built for are little-endian), a colon, the port.
func endpoint(s string) (netip.AddrPort, error) {
	host, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if !ok || err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.LittleEndian.Uint32(raw[i:]))
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), nil
}

// serialConsoles begin the names of consoles that leave the case on a wire.
var serialConsoles = []string{"ttyS", "ttyAMA", "ttymxc", "ttySTM", "ttyO", "ttyLP", "ttyPS", "ttySAC", "ttyMSM", "ttySC", "ttyUSB", "ttyGS"}

// debug says which ways in stay open for whoever has the device in hand.
func (p Probe) debug() map[string]string {
	out := map[string]string{}
	say := func(name string, open bool) {
		out[name] = wire.DebugClosed
		if open {
			out[name] = wire.DebugOpen
		}
	}
	if line, err := p.read("proc/cmdline"); err == nil {
		words := strings.Fields(line)
		has := func(prefixes ...string) bool {
			return slices.ContainsFunc(words, func(w string) bool {
				return slices.ContainsFunc(prefixes, func(x string) bool { return strings.HasPrefix(w, x) })
			})
		}
		say("kgdb", has("kgdboc=", "kgdbwait", "kgdbdbgp="))
		serial := []string{}
		for _, c := range serialConsoles {
			serial = append(serial, "console="+c)
		}
		consoles, err := p.read("proc/consoles")
		say("uart", has(serial...) || err == nil && slices.ContainsFunc(strings.Split(consoles, "\n"), func(l string) bool {
			return slices.ContainsFunc(serialConsoles, func(c string) bool { return strings.HasPrefix(l, c) })
		}))
	}
	for name, knob := range map[string]struct {
		file   string
		closed func(int64) bool
	}{
		"sysrq":  {"proc/sys/kernel/sysrq", func(v int64) bool { return v == 0 }},
		"ptrace": {"proc/sys/kernel/yama/ptrace_scope", func(v int64) bool { return v > 0 }},
		"kexec":  {"proc/sys/kernel/kexec_load_disabled", func(v int64) bool { return v == 1 }},
	} {
		if s, err := p.read(knob.file); err == nil {
			if v, err := strconv.ParseInt(s, 10, 64); err == nil {
				say(name, !knob.closed(v))
			}
		}
	}
	for name, file := range p.Debug {
		s, err := p.read(file)
		if err != nil || wire.CheckItem(name) != nil {
			continue
		}
		switch strings.ToLower(s) {
		case "1", "y", "yes", "on", "open", "enabled":
			say(name, true)
		case "0", "n", "no", "off", "closed", "disabled":
			say(name, false)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// errUnjudged says that there are passwords which nobody here can tell from factory passwords.
var errUnjudged = errors.New("there are passwords that cannot be judged")

// credentials lists accounts that open with a factory password or with none.
func (p Probe) credentials(ctx context.Context) ([]string, error) {
	out, err := p.shadow()
	if p.Credentials != "" {
		b, perr := exec.CommandContext(ctx, p.Credentials).Output()
		if perr != nil {
			return nil, fmt.Errorf("%s: %w", p.Credentials, perr)
		}
		out, err = append(out, strings.Fields(string(b))...), nil
	}
	if len(out) > 0 { // what was found is told, also when there may be more
		slices.Sort(out)
		return slices.Compact(out), nil
	}
	if err != nil {
		return nil, err
	}
	return []string{}, nil
}

// shadow judges /etc/shadow: an empty field opens without a password, one that begins with ! or * opens never (shadow(5)).
// Any other is a hash that only DefaultHashes can name.
func (p Probe) shadow() (found []string, err error) {
	text, err := p.read("etc/shadow")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		switch {
		case len(f) < 2:
		case f[1] == "" || slices.Contains(p.DefaultHashes, f[1]):
			found = append(found, f[0])
		case f[1][0] != '!' && f[1][0] != '*' && len(p.DefaultHashes) == 0:
			err = errUnjudged
		}
	}
	return found, err
}

// privileges says with which rights this very process runs (proc_pid_status(5)).
func (p Probe) privileges() map[string]bool {
	text, err := p.read("proc/self/status")
	if err != nil {
		return nil
	}
	out := map[string]bool{}
	capable := true
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		switch {
		case name == "Uid" && len(f) == 4: // real, effective, saved, file system
			out["agent-unprivileged"] = !slices.Contains(f, "0")
		case name == "CapEff" && len(f) == 1:
			capable = strings.Trim(f[0], "0") != ""
		case name == "NoNewPrivs" && len(f) == 1:
			out["agent-no-new-privileges"] = f[0] == "1"
		}
	}
	if ok, known := out["agent-unprivileged"]; known {
		out["agent-unprivileged"] = ok && !capable
	}
	return out
}
