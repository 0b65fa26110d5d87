// SPDX-License-Identifier: AGPL-3.0-only

package telemetry

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A recording is every system call by which a traced process changed a folder, and every one by which it made changes
// durable; a disk is what the power may leave of it. The rules are those of POSIX, which promises less than file systems
// do: bytes of a file are safe once fsync of the file has returned, names once fsync of their folder has; until then any
// of them may be missing, and a write may be there in part, sector by sector.

// traceArgs makes strace record the calls that recording reads, into the file given.
func traceArgs(out string) []string {
	return []string{"strace", "-f", "-qq", "--seccomp-bpf", "-y", "-ttt", "-T", "-s", "1048576", "-e", "signal=none", "-o", out, "-e",
		"trace=open,openat,creat,mkdir,mkdirat,link,linkat,rename,renameat,renameat2,unlink,unlinkat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync_file_range,ftruncate,truncate,fallocate,copy_file_range"}
}

// call is one system call that succeeded.
type call struct {
	kind  string // create, mkdir, link, rename, unlink, write, truncate, sync
	path  string // below the folder
	to    string // of link and rename
	data  []byte // of write
	off   int64  // of write; the new size of truncate
	began int    // how many calls had ended when this one began
	end   time.Time
}

var (
	traceHead = regexp.MustCompile(`^(\d+) +(\d+)\.(\d{6}) `)
	traceTail = regexp.MustCompile(`^ = (-?\d+)(?:<[^>]*>)?(?: \(.*\))?(?: E\w+.*)? <(\d+)\.(\d{6})>$`)
	resumed   = regexp.MustCompile(`^<\.\.\. \w+ resumed>(.*)$`)
)

// readTrace reads what strace wrote about a folder, in the order in which the calls ended.
func readTrace(r io.Reader, dir string) ([]call, error) {
	type begun struct {
		text  string
		at    time.Time
		ended int
	}
	open := map[string]begun{} // by thread
	var calls []call
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		m := traceHead.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		text := lines.Text()[len(m[0]):]
		sec, _ := strconv.ParseInt(m[2], 10, 64)
		usec, _ := strconv.ParseInt(m[3], 10, 64)
		b := begun{text, time.Unix(sec, usec*1000), len(calls)}
		if head, ok := strings.CutSuffix(b.text, " <unfinished ...>"); ok {
			b.text = head
			open[m[1]] = b
			continue
		}
		if rest := resumed.FindStringSubmatch(b.text); rest != nil {
			was, ok := open[m[1]]
			if !ok {
				return nil, fmt.Errorf("a call of thread %s resumes that never began", m[1])
			}
			delete(open, m[1])
			b = begun{was.text + rest[1], was.at, was.ended}
		}
		c, ok, err := parseCall(b.text, dir)
		if err != nil {
			return nil, err
		}
		if ok {
			c.began = b.ended
			c.end = b.at.Add(c.took())
			calls = append(calls, c.call)
		}
	}
	return calls, lines.Err()
}

type parsed struct {
	call
	seconds, micros string
}

func (p parsed) took() time.Duration {
	s, _ := strconv.ParseInt(p.seconds, 10, 64)
	u, _ := strconv.ParseInt(p.micros, 10, 64)
	return time.Duration(s)*time.Second + time.Duration(u)*time.Microsecond
}

// parseCall reads one call; ok is false for one that failed or does not concern the folder.
func parseCall(text, dir string) (c parsed, ok bool, err error) {
	// What was written is long, and no regular expression has to read it.
	name, rest, _ := strings.Cut(text, "(")
	end := max(0, strings.LastIndex(rest, " = "))
	list, closed := strings.CutSuffix(strings.TrimRight(rest[:end], " "), ")")
	m := traceTail.FindStringSubmatch(rest[end:])
	if !closed || m == nil || m[1] == "-1" {
		return c, false, nil
	}
	result := m[1]
	c.seconds, c.micros = m[2], m[3]
	args, err := splitArgs(list)
	if err != nil {
		return c, false, fmt.Errorf("%.200s: %w", text, err)
	}
	at := func(i int) (string, bool) { return below(args[i], dir) }
	number := func(i int) int64 { n, _ := strconv.ParseInt(args[i], 10, 64); return n }
	switch name {
	case "open", "openat", "creat":
		i := 0
		if name == "openat" {
			i = 1
		}
		c.kind = "create"
		if c.path, ok = at(i); !ok || name != "creat" && !strings.Contains(args[i+1], "O_CREAT") {
			return c, false, nil
		}
		if name == "creat" || strings.Contains(args[i+1], "O_TRUNC") {
			return c, false, fmt.Errorf("a file is truncated when it is opened: %s", text)
		}
	case "mkdir", "mkdirat":
		c.kind = "mkdir"
		c.path, ok = at(len(args) - 2)
	case "link", "rename":
		c.kind = name
		c.path, ok = at(0)
		c.to, _ = at(1)
	case "linkat", "renameat", "renameat2":
		c.kind = strings.TrimSuffix(strings.TrimSuffix(name, "2"), "at")
		c.path, ok = at(1)
		c.to, _ = at(3)
	case "unlink":
		c.kind = "unlink"
		c.path, ok = at(0)
	case "unlinkat":
		c.kind = "unlink"
		c.path, ok = at(1)
	case "fsync", "fdatasync":
		c.kind = "sync"
		c.path, ok = at(0)
	case "ftruncate":
		c.kind, c.off = "truncate", number(1)
		c.path, ok = at(0)
	case "pwrite64", "write":
		c.kind, c.off = "write", -1 // a plain write goes to the end: only key files are written so, once
		if name == "pwrite64" {
			c.off = number(3)
		}
		if c.path, ok = at(0); ok {
			if c.data, err = unquote(args[1]); err == nil && strconv.Itoa(len(c.data)) != result {
				err = fmt.Errorf("%d bytes were recorded and %s written", len(c.data), result)
			}
		}
	default:
		if strings.Contains(list, dir) {
			err = fmt.Errorf("the recording cannot replay %s", name)
		}
	}
	if strings.HasSuffix(c.path, "-shm") { // SQLite makes it anew when it opens a file that nobody has open
		ok = false
	}
	return c, ok && err == nil, err
}

// below reads a path argument ("/x/y", or 5</x/y> for a descriptor) and says whether it is in dir.
func below(arg, dir string) (string, bool) {
	if _, p, ok := strings.Cut(arg, "<"); ok && arg[0] != '"' {
		arg = strings.TrimSuffix(p, ">")
	} else {
		arg = strings.Trim(arg, `"`)
	}
	rel, err := filepath.Rel(dir, arg)
	if err != nil || !filepath.IsAbs(arg) || strings.HasPrefix(rel, "..") {
		return "", false
	}
	return rel, true
}

// splitArgs splits the arguments of a call at commas outside of texts and brackets.
func splitArgs(s string) ([]string, error) {
	var out []string
	start, depth, text := 0, 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '<' || c == '{' || c == '[' || c == '(':
			depth++
		case c == '>' || c == '}' || c == ']' || c == ')':
			depth--
		case c == ',' && depth == 0:
			out = append(out, strings.TrimSpace(s[start:i]))
			start = i + 1
		}
	}
	if text || depth != 0 {
		return nil, errors.New("the arguments are cut off")
	}
	return append(out, strings.TrimSpace(s[start:])), nil
}

// unquote reads a text as strace writes it: C escapes, octal numbers of one to three digits.
func unquote(s string) ([]byte, error) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return nil, fmt.Errorf("%.40s is no whole text", s)
	}
	s = s[1 : len(s)-1]
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		if j := strings.IndexByte(`nrtfv"\`, s[i]); j >= 0 {
			out = append(out, "\n\r\t\f\v\"\\"[j])
			continue
		}
		n := 0
		for n < 3 && i+n < len(s) && '0' <= s[i+n] && s[i+n] <= '7' {
			n++
		}
		v, err := strconv.ParseUint(s[i:i+n], 8, 8)
		if err != nil {
			return nil, err
		}
		out = append(out, byte(v))
		i += n - 1
	}
	return out, nil
}

// inode is a file: bytes that are safe, and calls since that are not.
type inode struct {
	dir     bool
	safe    []byte
	pending []call
}

// disk is a folder after some calls. Names are changed by calls too; those after the last fsync of their folder are pending.
type disk struct {
	live    map[string]*inode // as the process sees it
	safe    map[string]*inode // as it is certain
	pending []name            // changes of names, in order
}

type name struct {
	path  string
	inode *inode // nil: removed
	at    int    // of the call
}

func newDisk() *disk {
	root := &inode{dir: true}
	return &disk{live: map[string]*inode{".": root}, safe: map[string]*inode{".": root}}
}

// apply does what call number i did.
func (d *disk) apply(i int, c call) error {
	f := d.live[c.path]
	set := func(path string, n *inode) {
		d.pending = append(d.pending, name{path, n, i})
		if n == nil {
			delete(d.live, path)
		} else {
			d.live[path] = n
		}
	}
	switch c.kind {
	case "create", "mkdir":
		if f == nil {
			set(c.path, &inode{dir: c.kind == "mkdir"})
		}
		return nil
	}
	if f == nil {
		return fmt.Errorf("%s of %s, which does not exist", c.kind, c.path)
	}
	switch c.kind {
	case "link":
		set(c.to, f)
	case "rename":
		set(c.to, f)
		set(c.path, nil)
	case "unlink":
		set(c.path, nil)
	case "write", "truncate":
		c.began = i
		f.pending = append(f.pending, c)
	case "sync":
		if f.dir {
			d.pending = slices.DeleteFunc(d.pending, func(n name) bool {
				if filepath.Dir(n.path) != c.path || n.path == "." || n.at >= c.began {
					return false
				}
				put(d.safe, n)
				return true
			})
			return nil
		}
		var later []call
		for _, w := range f.pending {
			if w.began < c.began {
				f.safe = w.on(f.safe, nil)
			} else {
				later = append(later, w)
			}
		}
		f.pending = later
	}
	return nil
}

func put(names map[string]*inode, n name) {
	if n.inode == nil {
		delete(names, n.path)
	} else {
		names[n.path] = n.inode
	}
}

const sector = 512

// on does the write or truncation to the bytes of a file, in place where there is room: b is the caller's own. keep says
// which of its sectors reach the disk; nil: all.
func (c call) on(b []byte, keep func() bool) []byte {
	if c.kind == "truncate" {
		return append(b[:min(int64(len(b)), c.off)], make([]byte, max(0, c.off-int64(len(b))))...)
	}
	off := c.off
	if off < 0 {
		off = int64(len(b))
	}
	b = append(b, make([]byte, max(0, off+int64(len(c.data))-int64(len(b))))...) // a file grows even if its bytes are lost
	for i := int64(0); i < int64(len(c.data)); {
		next := min(int64(len(c.data)), (off+i)/sector*sector+sector-off) // to the end of the sector
		if keep == nil || keep() {
			copy(b[off+i:], c.data[i:next])
		}
		i = next
	}
	return b
}

// What the adversary makes of calls that are not safe.
const (
	allKept   = iota // the power went off when everything had reached the disk
	noneKept         // nothing had
	someKept         // some of it, writes in part
	adversary = iota
)

// lay writes one possible content of the disk into a folder.
func (d *disk) lay(dir string, how int, random *rand.Rand) error {
	names := map[string]*inode{}
	for p, n := range d.safe {
		names[p] = n
	}
	kept := map[int]int{noneKept: 0, allKept: len(d.pending), someKept: random.IntN(len(d.pending) + 1)}[how]
	for _, n := range d.pending[:kept] { // names change in order: a journal has no holes
		put(names, n)
	}
	paths := make([]string, 0, len(names))
	for p := range names {
		paths = append(paths, p)
	}
	slices.Sort(paths) // folders before what is in them
	for _, p := range paths {
		f, path := names[p], filepath.Join(dir, p)
		if names[filepath.Dir(p)] == nil {
			continue // its folder is gone, and it with it
		}
		if f.dir {
			if err := os.MkdirAll(path, 0o700); err != nil {
				return err
			}
			continue
		}
		b := bytes.Clone(f.safe)
		for _, w := range f.pending {
			switch {
			case how == allKept:
				b = w.on(b, nil)
			case how == someKept && random.IntN(2) == 0:
				b = w.on(b, func() bool { return random.IntN(4) > 0 })
			}
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// The model is checked: it keeps what POSIX promises and nothing else.
func TestDiskKeepsWhatWasSynced(t *testing.T) {
	const trace = `7 100.000001 openat(AT_FDCWD</x>, "/d/a", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 5</d/a> <0.000010>
7 100.000020 pwrite64(5</d/a>, "one\0\3734\n", 7, 0) = 7 <0.000010>
7 100.000040 fsync(5</d/a> <unfinished ...>
8 100.000041 pwrite64(5</d/a>, "T", 1, 0) = 1 <0.000001>
7 100.000090 <... fsync resumed>) = 0 <0.000050>
7 100.000100 open("/d/a", O_RDONLY|O_CREAT) = -1 EMFILE (Too many open files) <0.000001>
7 100.000110 openat(AT_FDCWD</x>, "/d", O_RDONLY) = 6</d> <0.000001>
7 100.000120 fsync(6</d>) = 0 <0.000030>
7 100.000200 unlink("/d/a") = 0 <0.000001>
7 100.000210 write(3<socket:[1]>, "x", 1) = 1 <0.000001>
`
	calls, err := readTrace(strings.NewReader(trace), "/d")
	if err != nil || len(calls) != 6 {
		t.Fatalf("%d calls, %v", len(calls), err)
	}
	if end := calls[3].end.UnixMicro(); end != 100000090 {
		t.Errorf("the fsync ended at %d", end)
	}
	const absent = "\x00absent"
	for i, want := range [][2]string{ // by number of calls: with everything kept, with nothing
		{absent, absent}, {"", absent}, {"one\x00\xfb4\n", absent}, {"Tne\x00\xfb4\n", absent}, {"Tne\x00\xfb4\n", absent},
		{"Tne\x00\xfb4\n", "one\x00\xfb4\n"}, {absent, "one\x00\xfb4\n"},
	} {
		d := newDisk()
		for j, c := range calls[:i] {
			if err := d.apply(j, c); err != nil {
				t.Fatal(err)
			}
		}
		for how, want := range want {
			dir := t.TempDir()
			if err := d.lay(dir, how, rand.New(rand.NewPCG(1, 1))); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(dir, "a"))
			if err != nil {
				got = []byte(absent)
			}
			if string(got) != want {
				t.Errorf("after %d calls, way %d: %q, want %q", i, how, got, want)
			}
		}
	}
	torn := call{kind: "write", off: 500, data: bytes.Repeat([]byte("x"), 600)}
	n := 0
	if b := torn.on(nil, func() bool { n++; return n == 2 }); n != 3 || len(b) != 1100 || bytes.Count(b, []byte("x")) != 512 || b[512] != 'x' || b[511] != 0 {
		t.Errorf("a torn write of 3 sectors: %d asked, %d bytes, %d kept", n, len(b), bytes.Count(b, []byte("x")))
	}
}
