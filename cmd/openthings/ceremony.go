// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/app"
	"github.com/openthings-platform/openthings/identity"
	"github.com/openthings-platform/openthings/identity/ceremony"
	"github.com/openthings-platform/openthings/problem"
)

// What follows runs on a machine without a network and knows no platform.

func caIdentityCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "identity", Short: "Make an age identity for recovery files, as age-keygen -pq does", Args: cobra.NoArgs,
		Long: "Make an age identity for recovery files, as age-keygen -pq does: X25519 with ML-KEM-768, since what it protects lives\n" +
			"for thirty years. The identity opens recovery files: keep it apart from them. FILE.pub is the recipient.",
		RunE: func(c *cobra.Command, _ []string) error {
			id, err := age.GenerateHybridIdentity()
			if err != nil {
				return err
			}
			if err := create(out, []byte(id.String()+"\n"), 0o600); err != nil {
				return err
			}
			if err := create(out+".pub", []byte(id.Recipient().String()+"\n"), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s opens what is encrypted to %s.pub\n", out, out)
			return nil
		},
	}
	c.Flags().StringVar(&out, "out", "", "where to write the identity")
	cobra.CheckErr(c.MarkFlagRequired("out"))
	return c
}

// recipients reads --recipient: each is age1… itself or a file with some.
func recipients(texts []string) ([]string, error) {
	var out []string
	for _, t := range texts {
		if !strings.HasPrefix(t, "age1") {
			b, err := readInput("--recipient", t)
			if err != nil {
				return nil, err
			}
			t = string(b)
		}
		out = append(out, t)
	}
	return out, nil
}

func recipientFlag(c *cobra.Command, to *[]string) {
	c.Flags().StringArrayVar(to, "recipient", nil, "who can open the recovery file: age1…, or a file with such lines; may be repeated")
	cobra.CheckErr(c.MarkFlagRequired("recipient"))
}

// unlocked opens recovery files with the identity.
func unlocked(identityFile string, files ...string) ([]ceremony.Recovery, error) {
	id, err := readInput("--identity", identityFile)
	if err != nil {
		return nil, err
	}
	defer clear(id)
	var out []ceremony.Recovery
	for _, f := range files {
		sealed, err := readInput("FILE", f)
		if err != nil {
			return nil, err
		}
		r, err := ceremony.Open(sealed, bytes.NewReader(id))
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func identityFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "identity", "", "age identity file that opens the recovery file")
	cobra.CheckErr(c.MarkFlagRequired("identity"))
}

func certificatePEM(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) //nolint:errcheck // a buffer takes everything
	}
	return b.Bytes()
}

func caCeremonyCommand() *cobra.Command {
	var out string
	var to, requests []string
	var algorithm string
	o := ceremony.Options{}
	c := &cobra.Command{
		Use: "ceremony", Short: "Make a root and an anchor; their keys leave memory only in an encrypted recovery file", Args: cobra.NoArgs,
		Long: "Make a root and an anchor on a machine without a network. Their keys leave memory only in the recovery file, encrypted\n" +
			"with age to the recipients. Runbook: docs/runbooks/ceremony.md.",
		Example: `  openthings ca ceremony --generation 2 --recipient safe.pub --out ceremony --sign operational.csr --sign server.csr`,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Now, o.Algorithm = time.Now(), identity.Algorithm(algorithm)
			texts, err := recipients(to)
			if err != nil {
				return err
			}
			readers, err := ceremony.ParseRecipients(texts)
			if err != nil {
				return err
			}
			r, err := ceremony.Make(o)
			if err != nil {
				return err
			}
			sealed, err := r.Seal(readers)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o700); err != nil {
				return err
			}
			// The keys are safe before anything that they signed exists.
			if err := create(filepath.Join(out, fmt.Sprintf("recovery-%d.age", o.Generation)), sealed, 0o600); err != nil {
				return err
			}
			for _, h := range r.Held {
				if err := create(filepath.Join(out, h.ID+".crt"), certificatePEM(h.Cert), 0o644); err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "%s: %s, ends %s\n", h.ID, identity.Fingerprint(h.Cert.Raw), h.Cert.NotAfter.Format(time.DateOnly))
			}
			return signRequests(c.OutOrStdout(), r, out, o.Now, requests)
		},
	}
	f := c.Flags()
	f.StringVar(&out, "out", "", "the folder to write to")
	f.StringVar(&o.Organization, "organization", "OpenThings", "in the names of root and anchor")
	f.Int64Var(&o.Generation, "generation", 1, "1 for the first root and anchor, 2 for their successors")
	f.StringArrayVar(&requests, "sign", nil, "request of an authority to sign at once; may be repeated")
	algorithmFlag(c, &algorithm)
	recipientFlag(c, &to)
	cobra.CheckErr(c.MarkFlagRequired("out"))
	return c
}

// signRequests signs each request and writes ID.crt beside it.
func signRequests(w io.Writer, r ceremony.Recovery, dir string, now time.Time, files []string) error {
	for _, f := range files {
		raw, err := readInput("REQUEST", f)
		if err != nil {
			return err
		}
		b, _ := pem.Decode(raw)
		if b == nil {
			return problem.Invalid("%s is not a request in PEM", f)
		}
		req, err := ceremony.ParseRequest(b.Bytes)
		if err != nil {
			return err
		}
		cert, err := r.Certify(req, now)
		if err != nil {
			return err
		}
		if err := create(filepath.Join(dir, req.ID+".crt"), certificatePEM(cert), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(w, "%s: signed by %s, ends %s\n", req.ID, cert.Issuer, cert.NotAfter.Format(time.DateOnly))
	}
	return nil
}

func caSignCommand() *cobra.Command {
	var key, recovery, out string
	c := &cobra.Command{
		Use: "sign REQUEST...", Short: "Sign requests of authorities with the keys in a recovery file", Args: cobra.MinimumNArgs(1),
		Example: `  openthings ca sign --recovery recovery-1.age --identity safe --out signed operational.csr`,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := unlocked(key, recovery)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o700); err != nil {
				return err
			}
			return signRequests(c.OutOrStdout(), r[0], out, time.Now(), args)
		},
	}
	identityFlag(c, &key)
	c.Flags().StringVar(&recovery, "recovery", "", "the recovery file")
	c.Flags().StringVar(&out, "out", ".", "the folder to write to")
	cobra.CheckErr(c.MarkFlagRequired("recovery"))
	return c
}

func caCrossSignCommand() *cobra.Command {
	var key, out string
	c := &cobra.Command{
		Use: "cross-sign OLD NEW", Short: "Certify the roots and anchors of two recovery files with each other's keys", Args: cobra.ExactArgs(2),
		Long: "Certify the roots and anchors of two recovery files with each other's keys: whoever knows only one of them then verifies\n" +
			"what stands below the other.",
		RunE: func(c *cobra.Command, args []string) error {
			rs, err := unlocked(key, args...)
			if err != nil {
				return err
			}
			var all []*x509.Certificate
			for _, role := range []identity.Role{identity.Root, identity.Anchor} {
				before, err := rs[0].Of(role)
				if err != nil {
					return err
				}
				after, err := rs[1].Of(role)
				if err != nil {
					return err
				}
				bridges, err := ceremony.CrossSign(before, after, time.Now())
				if err != nil {
					return err
				}
				all = append(all, bridges...)
			}
			if err := create(out, certificatePEM(all...), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%d bridges\n", len(all))
			return nil
		},
	}
	identityFlag(c, &key)
	c.Flags().StringVar(&out, "out", "", "where to write the bridges (PEM)")
	cobra.CheckErr(c.MarkFlagRequired("out"))
	return c
}

func caBundleSignCommand() *cobra.Command {
	var key, out string
	var files []string
	c := &cobra.Command{
		Use: "sign DRAFT", Short: "Sign the draft of a trust bundle with the anchors in recovery files", Args: cobra.ExactArgs(1),
		Long: "Sign the draft of a trust bundle with the anchors in recovery files: that of the version before, and each new one.",
		RunE: func(c *cobra.Command, args []string) error {
			draft, err := readInput("DRAFT", args[0])
			if err != nil {
				return err
			}
			rs, err := unlocked(key, files...)
			if err != nil {
				return err
			}
			s, err := ceremony.SignBundle(draft, rs...)
			if err != nil {
				return err
			}
			raw, err := json.Marshal(s)
			if err != nil {
				return err
			}
			if err := create(out, append(raw, '\n'), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "signed by %d anchors\n", len(s.Signatures))
			return nil
		},
	}
	identityFlag(c, &key)
	c.Flags().StringArrayVar(&files, "recovery", nil, "a recovery file; may be repeated")
	c.Flags().StringVar(&out, "out", "", "where to write the signed bundle")
	cobra.CheckErr(c.MarkFlagRequired("recovery"))
	cobra.CheckErr(c.MarkFlagRequired("out"))
	return c
}

func caRootCommand() *cobra.Command {
	c := parent("root", "Take the keys of root and anchor off the platform's machine")
	export, remove := &onHost{}, &onHost{}
	var to []string
	var out, key, proof, proofFile string
	exportCommand := &cobra.Command{
		Use: "export", Short: "Write the keys of root and anchor to an encrypted recovery file; nothing is removed yet", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			texts, err := recipients(to)
			if err != nil {
				return err
			}
			return ask(c, export, "root/export", app.CARequest{Recipients: texts}, func(w io.Writer, v app.Recovered) error {
				if err := create(out, []byte(v.File), 0o600); err != nil {
					return err
				}
				back, err := os.ReadFile(out)
				if err == nil {
					err = ceremony.Check(back)
				}
				if err != nil {
					return problem.Invalid("%s cannot be read back", out).Because(err)
				}
				_, err = fmt.Fprintf(w, "%s holds %s. Prove that it can be opened: openthings ca root prove --identity KEY --out proof.json %s\n", out, strings.Join(v.Authorities, " and "), out)
				return err
			})
		},
	}
	export.flags(exportCommand)
	recipientFlag(exportCommand, &to)
	exportCommand.Flags().StringVar(&out, "out", "", "where to write the recovery file")
	cobra.CheckErr(exportCommand.MarkFlagRequired("out"))

	proveCommand := &cobra.Command{
		Use: "prove FILE", Short: "Show that a recovery file can be opened and holds its keys; runs offline", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			rs, err := unlocked(key, args[0])
			if err != nil {
				return err
			}
			p, err := rs[0].Prove()
			if err != nil {
				return err
			}
			raw, err := json.Marshal(p)
			if err != nil {
				return err
			}
			if err := create(proof, append(raw, '\n'), 0o644); err != nil {
				return err
			}
			for _, h := range rs[0].Held {
				fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", h.ID, identity.Fingerprint(h.Cert.Raw))
			}
			return nil
		},
	}
	identityFlag(proveCommand, &key)
	proveCommand.Flags().StringVar(&proof, "out", "", "where to write the proof")
	cobra.CheckErr(proveCommand.MarkFlagRequired("out"))

	removeCommand := &cobra.Command{
		Use: "remove", Short: "Delete the keys of root and anchor from the platform's machine, given the proof", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			raw, err := readInput("--proof", proofFile)
			if err != nil {
				return err
			}
			p, err := identity.ParseProof(raw)
			if err != nil {
				return err
			}
			return ask(c, remove, "root/remove", app.CARequest{Proof: &p}, func(w io.Writer, v struct{ Removed []string }) error {
				_, err := fmt.Fprintf(w, "removed: %s\n", strings.Join(v.Removed, ", "))
				return err
			})
		},
	}
	remove.flags(removeCommand)
	removeCommand.Flags().StringVar(&proofFile, "proof", "", "what openthings ca root prove wrote")
	cobra.CheckErr(removeCommand.MarkFlagRequired("proof"))
	c.AddCommand(exportCommand, proveCommand, removeCommand)
	return c
}
