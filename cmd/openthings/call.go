// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/problem"
)

// apiCommand reaches every operation of the API from a shell, with the same address, token, CA and exit codes as the
// commands that have a name of their own.
func apiCommand() *cobra.Command {
	r := &remote{}
	var data, get string
	c := &cobra.Command{
		Use: "api METHOD PATH [NAME=TEXT | NAME=@FILE | NAME:=JSON]...", Short: "Call any operation of the HTTP API", Args: cobra.MinimumNArgs(2),
		Long: "Call any operation of the HTTP API and print its answer. The body is a JSON object of the members given, or what\n" +
			"--data names. The operations are listed by the platform itself at /openapi.json, and in docs/reference/openapi.json.",
		Example: `  openthings api GET /v1/me
  openthings api POST /v1/products name="Street lamp" model=lamp --get id
  openthings api POST /v1/stations batch=$BATCH name="line 3" quota:=10 csr=@station.csr
  openthings api POST /v1/trust/root --data signing/root.json`,
		RunE: func(c *cobra.Command, args []string) error {
			body, err := bodyOf(args[2:], data, c.InOrStdin())
			if err != nil {
				return err
			}
			cl, err := r.client()
			if err != nil {
				return err
			}
			var in any
			if body != nil {
				in = io.Reader(bytes.NewReader(body))
			}
			kind := "application/octet-stream"
			if json.Valid(body) {
				kind = "application/json"
			}
			var out []byte
			if err := cl.Do(c.Context(), strings.ToUpper(args[0]), args[1], in, &out, "Content-Type", kind); err != nil {
				return err
			}
			return printAnswer(c.OutOrStdout(), out, get)
		},
	}
	r.connect(c)
	c.Flags().StringVarP(&data, "data", "d", "", "file that is the body; - is standard input")
	c.Flags().StringVar(&get, "get", "", "print only this member of the answer, such as id or items.0.id")
	return c
}

// bodyOf makes the body of the members given, or reads the file; nil without either.
func bodyOf(members []string, file string, stdin io.Reader) ([]byte, error) {
	switch {
	case file != "" && len(members) > 0:
		return nil, usageError{errors.New("give members or --data, not both")}
	case file == "-":
		return io.ReadAll(stdin)
	case file != "":
		return readInput("--data", file)
	case len(members) == 0:
		return nil, nil
	}
	body := map[string]any{}
	for _, m := range members {
		name, text, ok := strings.Cut(m, "=")
		if !ok || name == "" {
			return nil, usageError{fmt.Errorf("%q is not NAME=TEXT, NAME=@FILE or NAME:=JSON", m)}
		}
		bare, isJSON := strings.CutSuffix(name, ":")
		path, isFile := strings.CutPrefix(text, "@")
		switch {
		case isJSON && !json.Valid([]byte(text)):
			return nil, usageError{fmt.Errorf("%s is not JSON in %q", text, m)}
		case isJSON:
			body[bare] = json.RawMessage(text)
		case isFile:
			b, err := readInput(name, path)
			if err != nil {
				return nil, err
			}
			body[name] = string(b)
		default:
			body[name] = text
		}
	}
	return json.Marshal(body)
}

func readInput(at, path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, problem.Invalid("%s cannot be read", path).At(at).Because(err)
	}
	return b, nil
}

// printAnswer prints JSON indented, anything else as it came, and with get only that member: text without its quotes.
func printAnswer(w io.Writer, answer []byte, get string) error {
	if get != "" {
		var err error
		if answer, err = member(answer, get); err != nil {
			return err
		}
		var s string
		if json.Unmarshal(answer, &s) == nil {
			_, err = fmt.Fprintln(w, s)
			return err
		}
	}
	if json.Valid(answer) {
		return printJSON(w, json.RawMessage(answer))
	}
	_, err := w.Write(answer)
	return err
}

// member walks a path of names and indexes separated by dots.
func member(doc []byte, path string) (json.RawMessage, error) {
	at := json.RawMessage(doc)
	for name := range strings.SplitSeq(path, ".") {
		var object map[string]json.RawMessage
		var list []json.RawMessage
		next, ok := json.RawMessage(nil), false
		if json.Unmarshal(at, &object) == nil {
			next, ok = object[name]
		} else if i, err := strconv.Atoi(name); err == nil && json.Unmarshal(at, &list) == nil && 0 <= i && i < len(list) {
			next, ok = list[i], true
		}
		if !ok {
			return nil, problem.NotFound("the answer has no %s", path).At("--get")
		}
		at = next
	}
	return at, nil
}
