// SPDX-License-Identifier: AGPL-3.0-only

package sbom

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/openthings-platform/openthings/problem"
)

// Bounds of evidence.
const (
	MaxEvidence  = 64 << 20 // bytes of one document; compile_commands.json of a large kernel has 30 MB
	maxCompiled  = 200_000  // source files, or options
	maxLine      = 64 << 10 // bytes of one line of a list
	maxPathBytes = 4096
)

// EvidenceKind says what a document shows about a build.
type EvidenceKind string

// The kinds of evidence.
const (
	CompiledFiles EvidenceKind = "compiled-files" // compile_commands.json, a build log, or a plain list of the kernel's sources
	KernelConfig  EvidenceKind = "kernel-config"  // the kernel's .config
)

// anchor is compiled into every kernel. It shows where the tree begins, and that the list is of a whole kernel.
const anchor = "init/main.c"

// ParseCompiled reads which source files of a kernel were compiled: compile_commands.json, a build log of kbuild
// ("  CC      net/ipv4/route.o"), or one path a line. The paths are relative to the kernel's tree and sorted; files outside
// of the tree are left out. A list without init/main.c is refused: it is no list of a whole kernel, and what it lacks
// would be taken for not compiled.
func ParseCompiled(r io.Reader) ([]string, error) {
	in := bufio.NewReader(r)
	head, err := in.Peek(512)
	if err != nil && err != io.EOF {
		return nil, err
	}
	var files []string
	if body := bytes.TrimLeft(head, "\ufeff \t\r\n"); len(body) > 0 && body[0] == '[' {
		files, err = compileCommands(in)
	} else {
		files, err = compileList(in)
	}
	if err != nil {
		return nil, err
	}
	return relativeToTree(files)
}

func compileCommands(in io.Reader) ([]string, error) {
	d := json.NewDecoder(in)
	var files []string
	_, err := d.Token()
	for err == nil && d.More() {
		var entry struct{ Directory, File string }
		if err = d.Decode(&entry); err != nil {
			break
		}
		if len(files) == maxCompiled {
			return nil, problem.TooLarge("the list names more than %d files", maxCompiled)
		}
		if !path.IsAbs(entry.File) {
			entry.File = path.Join(entry.Directory, entry.File)
		}
		files = append(files, entry.File)
	}
	if err == nil {
		_, err = d.Token()
	}
	if err != nil {
		return nil, problem.Invalid("the compile_commands.json cannot be read: %v", err)
	}
	return files, nil
}

// kbuildLine is how kbuild tells what it compiles: "  CC [M]  drivers/net/dummy.o".
var kbuildLine = regexp.MustCompile(`^\s+(CC|AS|RUSTC)\s+(?:\[M\]\s+|L\s+)?(\S+)\.o$`)

func compileList(in io.Reader) ([]string, error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	var files []string
	suffix := map[string]string{"CC": ".c", "AS": ".S", "RUSTC": ".rs"}
	for lines.Scan() {
		line := lines.Text()
		if m := kbuildLine.FindStringSubmatch(line); m != nil {
			line = m[2] + suffix[m[1]]
		} else if line = strings.TrimSpace(line); line == "" || line[0] == '#' || !isSource(line) {
			continue // a log says much more than this
		}
		if len(files) == maxCompiled {
			return nil, problem.TooLarge("the list names more than %d files", maxCompiled)
		}
		files = append(files, line)
	}
	if lines.Err() != nil {
		return nil, problem.TooLarge("the list has a line of more than %d bytes", maxLine)
	}
	return files, nil
}

func isSource(p string) bool {
	switch path.Ext(p) {
	case ".c", ".S", ".s", ".rs":
		return !strings.ContainsAny(p, " \t")
	}
	return false
}

func relativeToTree(files []string) ([]string, error) {
	root, found := "", false
	for i, f := range files {
		if len(f) > maxPathBytes || text("list", f) != nil {
			return nil, problem.Invalid("the list holds a path that is none: %.80q", f)
		}
		files[i] = path.Clean(strings.ReplaceAll(f, `\`, "/"))
		prefix, ok := strings.CutSuffix("/"+strings.TrimPrefix(files[i], "/"), "/"+anchor)
		if ok && (!found || len(prefix) < len(root)) {
			root, found = prefix, true
		}
	}
	if !found {
		return nil, problem.Invalid("the list does not name %s, which is compiled into every kernel", anchor).
			Hint("send compile_commands.json of the whole kernel, its build log, or the paths of all compiled files, one a line")
	}
	out := make([]string, 0, len(files))
	for _, f := range files {
		if rel, ok := strings.CutPrefix("/"+strings.TrimPrefix(f, "/"), root+"/"); ok && rel != "" && !strings.HasPrefix(rel, "../") {
			out = append(out, rel)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// configLine is one option of a .config: set, or said to be not set.
var configLine = regexp.MustCompile(`^(CONFIG_[A-Za-z0-9_]+)=(.*)$`)

// ParseKernelConfig reads the options that a kernel's .config sets, as "CONFIG_NET=y", sorted.
func ParseKernelConfig(r io.Reader) ([]string, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	var options []string
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == '#':
		case !configLine.MatchString(line) || text("option", line) != nil:
			return nil, problem.Invalid("this is no kernel configuration: %.80q", line)
		case len(options) == maxCompiled:
			return nil, problem.TooLarge("the configuration sets more than %d options", maxCompiled)
		default:
			options = append(options, line)
		}
	}
	if lines.Err() != nil {
		return nil, problem.TooLarge("the configuration has a line of more than %d bytes", maxLine)
	}
	if len(options) == 0 {
		return nil, problem.Invalid("the kernel configuration sets no option")
	}
	slices.Sort(options)
	return slices.Compact(options), nil
}
