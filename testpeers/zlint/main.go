// SPDX-License-Identifier: AGPL-3.0-only

// Command zlint lints certificates for the tests of package identity. It prints one JSON object per file: the lints
// that did not pass, by name, with their result and source. Files are in DER or PEM.
//
//	zlint [-exclude SOURCE,…] FILE...
package main

import (
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
)

// finding is a lint that did not pass.
type finding struct {
	Lint    string `json:"lint"`
	Result  string `json:"result"` // notice, warn, error, fatal
	Source  string `json:"source"`
	Details string `json:"details,omitempty"`
}

type report struct {
	File     string    `json:"file"`
	Lints    int       `json:"lints"` // that were applicable and ran
	Findings []finding `json:"findings"`
}

func main() {
	exclude := flag.String("exclude", "", "sources of lints that do not apply, separated by commas")
	flag.Parse()
	if err := run(*exclude, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "zlint:", err)
		os.Exit(1)
	}
}

func run(exclude string, files []string) error {
	var o lint.FilterOptions
	if exclude != "" {
		for _, name := range strings.Split(exclude, ",") {
			var source lint.LintSource
			if source.FromString(name); source == lint.UnknownLintSource {
				return fmt.Errorf("no lints have the source %q", name)
			}
			o.ExcludeSources = append(o.ExcludeSources, source)
		}
	}
	registry, err := lint.GlobalRegistry().Filter(o)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, f := range files {
		r, err := check(f, registry)
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func check(file string, registry lint.Registry) (report, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return report{}, err
	}
	if b, _ := pem.Decode(raw); b != nil {
		raw = b.Bytes
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		return report{}, err
	}
	r := report{File: file, Findings: []finding{}}
	for name, result := range zlint.LintCertificateEx(c, registry).Results {
		switch result.Status {
		case lint.NA, lint.NE, lint.Reserved:
			continue
		}
		r.Lints++
		if result.Status == lint.Pass {
			continue
		}
		meta := registry.CertificateLints().ByName(name)
		r.Findings = append(r.Findings, finding{name, result.Status.String(), string(meta.Source), result.Details})
	}
	return r, nil
}
