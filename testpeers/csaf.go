// SPDX-License-Identifier: AGPL-3.0-only

package testpeers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// CSAF judges documents and providers of CSAF with two programs that share no code: gocsaf v3.7.0 (csaf_validator and
// csaf_checker) and Secvisogram's csaf-validator-lib 2.0.10.
type CSAF struct {
	dir    string // of the programs of gocsaf
	url    string // of csaf-validator-lib as a service
	cmd    *exec.Cmd
	closer io.Closer
}

// CSAFFinding is what a judge says against a document.
type CSAFFinding struct {
	Test string // such as mandatoryTest_6_1_6; "csaf_validator" for the other judge
	Says string
}

// StartCSAF builds and installs the judges if this machine has not yet, and starts the one that is a service. It ends
// with Stop, or with ctx.
func StartCSAF(ctx context.Context) (*CSAF, error) {
	const cmds = "github.com/gocsaf/csaf/v3/cmd/"
	dir, err := build(ctx, "gocsaf", cmds+"csaf_checker", cmds+"csaf_validator")
	if err != nil {
		return nil, err
	}
	lib, err := install(ctx, "csafjs")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "node", filepath.Join(lib, "client.mjs"))
	in, out, err := start(cmd)
	if err != nil {
		return nil, err
	}
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("testpeers: csaf-validator-lib did not start: %w", errors.Join(err, in.Close(), cmd.Wait()))
	}
	return &CSAF{dir: dir, url: "http://127.0.0.1:" + strings.TrimSpace(port), cmd: cmd, closer: in}, nil
}

// Stop ends the service.
func (c *CSAF) Stop() error { return errors.Join(c.closer.Close(), c.cmd.Wait()) }

// Judge says what both judges find in a document that is called name: errors, warnings and hints of all tests.
func (c *CSAF) Judge(ctx context.Context, name string, doc []byte) ([]CSAFFinding, error) {
	body, err := json.Marshal(map[string]any{"tests": []map[string]string{{"type": "preset", "name": "full"}}, "document": json.RawMessage(doc)})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/api/v1/validate", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	type message struct{ Message, InstancePath string }
	var said struct {
		Tests []struct {
			Name                    string
			Errors, Warnings, Infos []message
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&said); err != nil || len(said.Tests) < 70 {
		return nil, fmt.Errorf("testpeers: csaf-validator-lib ran %d tests: %w", len(said.Tests), err)
	}
	var found []CSAFFinding
	for _, t := range said.Tests {
		for _, m := range append(append(t.Errors, t.Warnings...), t.Infos...) {
			found = append(found, CSAFFinding{t.Name, m.InstancePath + ": " + m.Message})
		}
	}
	other, err := c.validator(ctx, name, doc)
	return append(found, other...), err
}

// validator asks csaf_validator. It ends with 0 if all is well, 2 and 4 are bits of what is not.
func (c *CSAF) validator(ctx context.Context, name string, doc []byte) ([]CSAFFinding, error) {
	dir, err := os.MkdirTemp("", "csaf-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, doc, 0o600); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, filepath.Join(c.dir, "csaf_validator"), "--validator", c.url, file).CombinedOutput()
	says := strings.ReplaceAll(string(out), file, name)
	passes := fmt.Sprintf("%q passes the schema validation.\n%[1]q passes remote validation.\n", name)
	var ended *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &ended):
		return nil, fmt.Errorf("testpeers: csaf_validator: %w", err)
	case err != nil || says != passes:
		return []CSAFFinding{{"csaf_validator", says}}, nil
	}
	return nil, nil
}

// CSAFRequirement is what csaf_checker says about one of the requirements of section 7.1.
type CSAFRequirement struct {
	Num         int
	Description string
	Messages    []struct {
		Type int // 0: only to be known, 1: a warning, 2: an error
		Text string
	}
}

// CSAFReport is what csaf_checker says about a provider.
type CSAFReport struct {
	Role         string
	Passed       bool // every requirement of the role
	Requirements []CSAFRequirement
}

// Check has csaf_checker walk through the provider of the domain. Env tells it the way there (HTTPS_PROXY) and whom to
// trust (SSL_CERT_FILE); headers are sent along with each request ("Authorization: Bearer …").
func (c *CSAF) Check(ctx context.Context, domain string, env []string, headers ...string) (CSAFReport, error) {
	args := []string{"--validator", c.url}
	for _, h := range headers {
		args = append(args, "--header", h)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(c.dir, "csaf_checker"), append(args, domain)...)
	cmd.Env = append(os.Environ(), env...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return CSAFReport{}, fmt.Errorf("testpeers: csaf_checker: %w\n%s", err, complaints.String())
	}
	var said struct{ Domains []CSAFReport }
	if err := json.Unmarshal(out, &said); err != nil || len(said.Domains) != 1 {
		return CSAFReport{}, fmt.Errorf("testpeers: csaf_checker reported on %d domains: %w\n%s", len(said.Domains), err, complaints.String())
	}
	return said.Domains[0], nil
}
