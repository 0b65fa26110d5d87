// SPDX-License-Identifier: Apache-2.0

package hardwaretest

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TPM is a software TPM 2.0 that runs for one test.
type TPM struct {
	// Where is what tpm.Open takes.
	Where string

	dir  string
	stop func()
	t    testing.TB
}

// need is the path of a program, or the end of the test.
func need(t testing.TB, program, pkg string) string {
	t.Helper()
	p, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is not installed: apt-get install %s (scripts/deps.sh test does it)", program, pkg)
	}
	return p
}

// command runs a program to its end.
func command(t testing.TB, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// NewTPM starts an empty TPM without an endorsement certificate.
func NewTPM(t testing.TB) *TPM {
	t.Helper()
	tpm := &TPM{dir: shortDir(t), t: t}
	tpm.Start()
	return tpm
}

// shortDir is a folder whose paths fit into a socket's name, which is at most 107 bytes long.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a folder in the temporary one
	return dir
}

// Start powers the TPM on; what it had stored is there again, what was loaded is gone.
func (p *TPM) Start() {
	p.t.Helper()
	path := filepath.Join(p.dir, "tpm.sock")
	p.Where = "unix:" + path
	// The folder of the state must be an absolute path: with a relative one the first command fails.
	cmd := exec.Command(need(p.t, "swtpm", "swtpm"), "socket", "--tpm2", "--tpmstate", "dir="+p.dir, "--server", "type=unixio,path="+path,
		"--flags", "not-need-init,startup-clear")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait() //nolint:errcheck // it is killed in the end
		close(ended)
	}()
	p.stop = func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		<-ended
		os.Remove(path) //nolint:errcheck // it may be gone
	}
	p.t.Cleanup(func() { p.stop() })
	for deadline := time.Now().Add(30 * time.Second); ; {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close() //nolint:errcheck // it was open
			return
		}
		select {
		case <-ended:
			p.t.Fatalf("swtpm ended: %s", out.String())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.t.Fatal("swtpm does not answer")
		}
	}
}

// Stop powers the TPM off.
func (p *TPM) Stop() { p.stop() }

// Maker is a maker of TPMs with a certificate authority of its own.
type Maker struct {
	// Root is the authority at the top, Chain what lies between it and the endorsement certificates.
	Root  *x509.Certificate
	Chain []*x509.Certificate

	dir string
	t   testing.TB
}

// NewMaker founds a maker; its authority is made with its first TPM.
func NewMaker(t testing.TB) *Maker {
	t.Helper()
	m := &Maker{dir: shortDir(t), t: t}
	for name, text := range map[string]string{
		"setup.conf": fmt.Sprintf("create_certs_tool = %s\ncreate_certs_tool_config = %[2]s/ca.conf\ncreate_certs_tool_options = %[2]s/options\n", need(t, "swtpm_localca", "swtpm-tools"), m.dir),
		"ca.conf":    fmt.Sprintf("statedir = %[1]s\nsigningkey = %[1]s/signkey.pem\nissuercert = %[1]s/issuer.pem\ncertserial = %[1]s/serial\n", m.dir),
		"options":    "--platform-manufacturer Test\n--platform-version 1\n--platform-model Test\n",
	} {
		if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// NewTPM makes and starts a TPM that carries the maker's endorsement certificates (RSA 2048 and P-384).
func (m *Maker) NewTPM() *TPM {
	m.t.Helper()
	need(m.t, "certtool", "gnutls-bin") // swtpm_localca signs with it
	p := &TPM{dir: shortDir(m.t), t: m.t}
	command(m.t, []string{"XDG_CONFIG_HOME=" + m.dir}, need(m.t, "swtpm_setup", "swtpm-tools"), "--tpm2", "--tpmstate", p.dir, "--create-ek-cert",
		"--config", filepath.Join(m.dir, "setup.conf"))
	if m.Root == nil {
		m.Root = m.certificate("swtpm-localca-rootca-cert.pem")
		m.Chain = []*x509.Certificate{m.certificate("issuer.pem")}
	}
	p.Start()
	return p
}

func (m *Maker) certificate(name string) *x509.Certificate {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		m.t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		m.t.Fatalf("%s holds no certificate", name)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}
