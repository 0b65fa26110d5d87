// SPDX-License-Identifier: AGPL-3.0-only

package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"

	"github.com/openthings-platform/openthings/identity"
)

// scalar is the private key with the number given.
func scalar(t testing.TB, c elliptic.Curve, d *big.Int) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.ParseRawPrivateKey(c, d.FillBytes(make([]byte, (c.Params().BitSize+7)/8)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// faulty makes a modulus as Infineon's library did: both factors are k*M + 65537^a mod M. They need not be prime for it.
func faulty(t testing.TB) *big.Int {
	t.Helper()
	m := big.NewInt(1)
	for _, p := range []int64{2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113,
		127, 131, 137, 139, 149, 151, 157, 163, 167} {
		m.Mul(m, big.NewInt(p))
	}
	factor := func() *big.Int {
		k, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(1024-m.BitLen())))
		if err != nil {
			t.Fatal(err)
		}
		k.SetBit(k, 1027-m.BitLen(), 1)
		a, err := rand.Int(rand.Reader, m)
		if err != nil {
			t.Fatal(err)
		}
		return k.Add(k.Mul(k, m), a.Exp(big.NewInt(65537), a, m))
	}
	for {
		if n := new(big.Int).Mul(factor(), factor()); n.BitLen() >= identity.MinRSA {
			return n
		}
	}
}

func TestWeakness(t *testing.T) {
	hexInt := func(s string) *big.Int {
		n, ok := new(big.Int).SetString(s, 16)
		if !ok {
			t.Fatal(s)
		}
		return n
	}
	// The public halves are from the standards too, so that a slip in our table shows.
	rfc6979 := scalar(t, elliptic.P256(), hexInt("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"))
	if rfc6979.X.Cmp(hexInt("60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6")) != 0 {
		t.Fatal("that is not the key of RFC 6979 A.2.5")
	}
	rfc8032, err := hex.DecodeString("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
	if err != nil {
		t.Fatal(err)
	}
	n256 := elliptic.P256().Params().N
	good, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	even := new(big.Int).SetBit(good.N, 0, 0)
	for _, c := range []struct {
		name string
		key  crypto.PublicKey
		want string
	}{
		{"P-256", p256(t).Public(), ""},
		{"P-384", ec(t, elliptic.P384()).Public(), ""},
		{"RSA-2048", good.Public(), ""},
		{"the generator itself", scalar(t, elliptic.P256(), big.NewInt(1)).Public(), "first numbers"},
		{"1000 on P-384", scalar(t, elliptic.P384(), big.NewInt(1000)).Public(), "first numbers"},
		{"minus 5", scalar(t, elliptic.P256(), new(big.Int).Sub(n256, big.NewInt(5))).Public(), "first numbers"},
		{"RFC 6979", rfc6979.Public(), "standard"},
		{"RFC 8032", ed25519.PublicKey(rfc8032), "standard"},
		{"RSA-1024", &rsa.PublicKey{N: new(big.Int).Rsh(good.N, 1024), E: 65537}, "bits"},
		{"exponent 3", &rsa.PublicKey{N: good.N, E: 3}, "exponent"},
		{"even", &rsa.PublicKey{N: even, E: 65537}, "even"},
		{"ROCA", &rsa.PublicKey{N: faulty(t), E: 65537}, "ROCA"},
		{"a multiple of 163", &rsa.PublicKey{N: new(big.Int).Mul(good.N, big.NewInt(163)), E: 65537}, "163"},
	} {
		if got := identity.Weakness(c.key); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
