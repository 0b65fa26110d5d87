// SPDX-License-Identifier: AGPL-3.0-only

package self

import (
	"crypto/sha256"
	"crypto/sha512"
	"debug/buildinfo"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/openthings-platform/openthings/console"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/sbom"
)

// Release is what a release is called and when it was published. It is stamped into the program by scripts/release.sh;
// a build without it is no release.
type Release struct {
	Version   string    `json:"version"`
	Published time.Time `json:"published,omitzero" doc:"Midnight UTC of the day; absent: this build is no release"`
}

// Stamped by scripts/release.sh through -ldflags -X.
var version, published string

// Stamped is the release that this program was built as; a build that is none has the version "devel".
func Stamped() Release {
	r, err := ParseRelease(version, published)
	if err != nil {
		return Release{Version: "devel"}
	}
	return r
}

var versionForm = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)

// ParseRelease reads a version such as 1.4.0 and a day such as 2027-03-01.
func ParseRelease(version, day string) (Release, error) {
	if !versionForm.MatchString(version) {
		return Release{}, problem.Invalid("%.40q is not a version such as 1.4.0.", version).At("version")
	}
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return Release{}, problem.Invalid("%.40q is not a day such as 2027-03-01.", day).At("published")
	}
	return Release{Version: version, Published: at}, nil
}

// Program is a file that was built from this repository.
type Program struct {
	Name   string `json:"name" doc:"Such as openthings"`
	Path   string `json:"path" doc:"Import path of its main package"`
	Go     string `json:"go" doc:"Version of the toolchain"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	SHA512 string `json:"sha512"`
	Release

	info *debug.BuildInfo
}

// Running opens the file of the running program, also after another file has taken its name.
func Running() (*os.File, error) {
	if f, err := os.Open("/proc/self/exe"); err == nil {
		return f, nil
	}
	name, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return os.Open(name)
}

// Read reads what the build left in a program and what the file's digests are.
func Read(f *os.File, r Release) (Program, error) {
	info, err := buildinfo.Read(f)
	if err != nil {
		return Program{}, problem.Invalid("%s carries no build information of Go.", path.Base(f.Name())).Because(err)
	}
	if info.Main.Path != module {
		return Program{}, problem.Invalid("%s was not built from %s.", path.Base(f.Name()), module)
	}
	short, long := sha256.New(), sha512.New()
	n, err := io.Copy(io.MultiWriter(short, long), f)
	if err != nil {
		return Program{}, err
	}
	return Program{Name: path.Base(info.Path), Path: info.Path, Go: info.GoVersion, Size: n, Release: r, info: info,
		SHA256: hex.EncodeToString(short.Sum(nil)), SHA512: hex.EncodeToString(long.Sum(nil))}, nil
}

// module is this repository, and what its main packages are built from.
const module = "github.com/openthings-platform/openthings"

// project is who makes it. No legal entity stands behind the name: see Open.
const project = "The OpenThings project"

// home is where the module is found, as its path says (https://go.dev/ref/mod#vcs).
const home = "https://" + module

//go:embed data/modules.json
var modulesJSON []byte

// modules are the licence of each module that a program links, as an SPDX expression, and who supplies it.
var modules = must[map[string][2]string](modulesJSON)

// must reads an embedded file: a fault in one fails every test and the first start, never a later request.
func must[T any](b []byte) (v T) {
	if err := json.Unmarshal(b, &v); err != nil {
		panic("self: " + err.Error())
	}
	return v
}

// Bill writes the program's bill of materials as CycloneDX 1.6: the same file and release give the same bytes.
func (p Program) Bill() ([]byte, error) {
	doc, err := sbom.FromBuildInfo(p.info, "sha256:"+p.SHA256, p.Name, p.Version)
	if err != nil {
		return nil, err
	}
	b, err := sbom.Parse(doc)
	if err != nil {
		return nil, err
	}
	b.Created = p.Published
	b.Creators = append(b.Creators, fmt.Sprintf("Organization: %s (%s)", project, home))
	b.Root.Supplier = sbom.Supplier{Name: project, Contact: home}
	b.Root.Licences = []sbom.Licence{{ID: p.licence()}}
	b.Root.Hashes = append(b.Root.Hashes, sbom.Hash{Algorithm: "SHA-512", Value: p.SHA512})
	b.Root.BSI.Filename = p.Name
	for i := range b.Components {
		c := &b.Components[i]
		if c.Name == "stdlib" {
			c.Licences, c.Supplier = licences("BSD-3-Clause"), sbom.Supplier{Name: "The Go Authors", Contact: "https://go.dev"}
			continue
		}
		c.Supplier.Contact = "https://" + c.Name
		if m, known := modules[c.Name]; known {
			c.Licences, c.Supplier.Name = licences(m[0]), m[1]
		}
	}
	p.embedded(&b)
	// Build information names every module. What a module holds of others is known of SQLite alone.
	b.Complete = "incomplete"
	return b.Write(sbom.CycloneDX16)
}

// licence is that of the program itself.
func (p Program) licence() string {
	if p.Name == "openthings" {
		return "AGPL-3.0-only"
	}
	return "Apache-2.0"
}

func licences(expression string) []sbom.Licence {
	if strings.Contains(expression, " ") {
		return []sbom.Licence{{Expression: expression}}
	}
	return []sbom.Licence{{ID: expression}}
}

// embedded adds what build information does not name: the browser's libraries, and SQLite, which a module carries.
func (p Program) embedded(b *sbom.Bill) {
	root := b.Root.Ref
	if p.Name == "openthings" {
		for _, l := range console.Libraries() {
			c := sbom.Component{Ref: "pkg:npm/" + l.Name + "@" + l.Version, Name: l.Name, Version: l.Version, PURL: "pkg:npm/" + l.Name + "@" + l.Version, Type: "library",
				Licences: licences(l.Licence), Supplier: sbom.Supplier{Name: "The " + l.Name + " authors", Contact: "https://www.npmjs.com/package/" + l.Name},
				Hashes: []sbom.Hash{{Algorithm: "SHA-512", Value: l.SHA512}}}
			c.BSI.Filename = path.Base(l.Name) + "-" + l.Version + ".tgz"
			b.Components = append(b.Components, c)
			b.Relations = append(b.Relations, sbom.Relation{From: root, Kind: sbom.DependsOn, To: c.Ref})
		}
	}
	carrier := slices.IndexFunc(b.Components, func(c sbom.Component) bool {
		return c.Name == "modernc.org/sqlite" && c.Version == linkedSQLite()
	})
	if carrier >= 0 {
		c := sbom.Component{Ref: "pkg:generic/sqlite@" + sqlite3.SQLITE_VERSION, Name: "sqlite", Version: sqlite3.SQLITE_VERSION, PURL: "pkg:generic/sqlite@" + sqlite3.SQLITE_VERSION,
			CPE: "cpe:2.3:a:sqlite:sqlite:" + sqlite3.SQLITE_VERSION + ":*:*:*:*:*:*:*", Type: "library", Licences: licences("blessing"),
			Supplier: sbom.Supplier{Name: "The SQLite authors", Contact: "https://sqlite.org"}}
		b.Relations = append(b.Relations, sbom.Relation{From: b.Components[carrier].Ref, Kind: sbom.Contains, To: c.Ref})
		b.Components = append(b.Components, c)
	}
}

// linkedSQLite is the version of the module that this program reads SQLite's own version from. Another file may link
// another one, of which nothing is known.
func linkedSQLite() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == "modernc.org/sqlite" {
			return m.Version
		}
	}
	return ""
}
