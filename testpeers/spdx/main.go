// SPDX-License-Identifier: AGPL-3.0-only

// The library of the SPDX project reads documents and says what is wrong with them. Each line of the input is
// {"version", "document"}, each line of the output {"packages", "wrong"}. It ends with its input.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v3/v3_0"
)

type verdict struct {
	Packages int    `json:"packages"`
	Wrong    string `json:"wrong"`
}

func main() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var ask struct{ Version, Document string }
		if err := in.Decode(&ask); err == io.EOF {
			return
		} else if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		judge := three
		if ask.Version == "2.3" {
			judge = two
		}
		n, err := judge(ask.Document)
		v := verdict{Packages: n}
		if err != nil {
			v.Wrong = err.Error()
		}
		if err := out.Encode(v); err != nil {
			os.Exit(1)
		}
	}
}

func two(doc string) (int, error) {
	d, err := spdxjson.Read(strings.NewReader(doc))
	if err != nil {
		return 0, err
	}
	return len(d.Packages), nil
}

func three(doc string) (n int, err error) {
	d := &v3_0.Document{}
	if err := d.FromJSON(strings.NewReader(doc)); err != nil {
		return 0, err
	}
	for _, e := range d.Elements {
		if _, ok := e.(v3_0.AnyPackage); ok {
			n++
		}
	}
	return n, d.Validate(false)
}
