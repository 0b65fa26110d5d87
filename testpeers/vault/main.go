// SPDX-License-Identifier: AGPL-3.0-only

// Command vault is a Vault server with the PKI engine and nothing else, for tests: storage in memory, or in files of the
// folder that its argument names, TLS on loopback with a fresh certificate. It prints how to reach it as one line of JSON
// and ends when its standard input does.
//
// It is a module of its own, so that nothing of it enters the platform.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/builtin/logical/pki"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

func main() {
	if err := run(strings.Join(os.Args[1:], " ")); err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	core, token, unseal, err := open(dir)
	if err != nil {
		return err
	}
	cert, ca, err := selfSigned()
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{Address: l.Addr().String()}}),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // clients that refuse the certificate are part of the tests
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{
		"address": "https://" + l.Addr().String(), "token": token, "ca": ca, "unseal": unseal,
	}); err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, os.Stdin) //nolint:errcheck // any end is the end
		srv.Close()
	}()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// synced makes Vault's file storage durable, which it is not by itself: what was put is on disk when Put returns.
type synced struct {
	physical.Backend
	dir string
}

func (s synced) Put(ctx context.Context, e *physical.Entry) error {
	if err := s.Backend.Put(ctx, e); err != nil {
		return err
	}
	folder, name := filepath.Split(filepath.Join(s.dir, e.Key))
	return errors.Join(sync(filepath.Join(folder, "_"+name)), sync(folder))
}

func sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// storage is in memory, or durable below dir.
func storage(dir string, logger hclog.Logger) (physical.Backend, error) {
	if dir == "" {
		return inmem.NewInmem(nil, logger)
	}
	b, err := file.NewFileBackend(map[string]string{"path": dir}, logger)
	return synced{b, dir}, err
}

// open makes an unsealed core and returns its root token and unseal key.
func open(dir string) (core *vault.Core, token, unseal string, err error) {
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr})
	kept, err := storage(dir, logger)
	if err != nil {
		return nil, "", "", err
	}
	core, err = vault.NewCore(&vault.CoreConfig{
		Physical: kept, Logger: logger, LogLevel: "error", DisableMlock: true, BuiltinRegistry: onlyPKI{},
		LogicalBackends: map[string]logical.Factory{"pki": pki.Factory},
	})
	if err != nil {
		return nil, "", "", err
	}
	made, err := core.Initialize(context.Background(), &vault.InitParams{
		BarrierConfig: &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}, RecoveryConfig: &vault.SealConfig{}, LegacyShamirSeal: true,
	})
	if err != nil {
		return nil, "", "", err
	}
	key := made.SecretShares[0]
	unseal = hex.EncodeToString(key) // before Unseal, which clears it
	if ok, err := core.Unseal(key); err != nil || !ok {
		return nil, "", "", errors.Join(err, errors.New("the core stays sealed"))
	}
	return core, made.RootToken, unseal, nil
}

// onlyPKI is the catalogue of built-in plugins.
type onlyPKI struct{}

func (onlyPKI) Contains(name string, t consts.PluginType) bool {
	return name == "pki" && t == consts.PluginTypeSecrets
}

func (r onlyPKI) Get(name string, t consts.PluginType) (func() (interface{}, error), bool) {
	return func() (interface{}, error) { return logical.Factory(pki.Factory), nil }, r.Contains(name, t)
}

func (onlyPKI) Keys(t consts.PluginType) []string {
	if t == consts.PluginTypeSecrets {
		return []string{"pki"}
	}
	return nil
}

func (r onlyPKI) DeprecationStatus(name string, t consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, t)
}

// selfSigned makes the server's certificate and returns it also as the PEM that a client pins.
func selfSigned() (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "test peer"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(30 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}
