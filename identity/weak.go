// SPDX-License-Identifier: AGPL-3.0-only

package identity

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/hex"
	"fmt"
	"math/big"
	"sync"
)

// MinRSA is the smallest RSA modulus, in bits, that policy can take. Our own profiles take no RSA at all; certificates of
// birth from other makers may have such keys.
const MinRSA = 2048

// Weakness says why others can compute the private key that belongs to key; empty: no reason is known. It covers what
// shows in the key itself: private keys that stand in standards, private keys out of a tiny range (a generator without
// entropy), RSA moduli that are short, have a weak exponent or came from Infineon's faulty library (ROCA,
// CVE-2017-15361). Keys of Debian's faulty generator (CVE-2008-0166) show nothing; import their list with BlockKeys.
func Weakness(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return weakPoint(k)
	case ed25519.PublicKey:
		if publishedEd25519()[string(k)] {
			return "its private key stands in a standard"
		}
	case *rsa.PublicKey:
		return weakModulus(k)
	}
	return ""
}

// fewScalars is how many private keys from 1 on are tried, and as many from the other end.
const fewScalars = 1024

// weakPoints holds the x coordinates of points whose discrete logarithm everybody knows. A point and its negative share x.
type weakPoints map[string]string

func weakPoint(k *ecdsa.PublicKey) string {
	point, err := k.Bytes() // 04 x y
	if err != nil {
		return "it is no point of its curve"
	}
	x := string(point[1 : 1+(len(point)-1)/2])
	switch k.Curve {
	case elliptic.P256():
		return weakP256()[x]
	case elliptic.P384():
		return weakP384()[x]
	}
	return ""
}

var (
	weakP256 = sync.OnceValue(func() weakPoints { return knownPoints(ecdh.P256(), 32, publishedP256) })
	weakP384 = sync.OnceValue(func() weakPoints { return knownPoints(ecdh.P384(), 48, publishedP384) })
)

// Private keys that were published as examples, and that devices with copied code therefore have.
var (
	publishedP256 = []string{
		"c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721", // RFC 6979 A.2.5
		"8e9b109e719098bf980487df1f5d77e9cb29606ebed2263b5f57c213df84f4b2", // RFC 7515 A.3.1
		"f3bd0c07a81fb932781ed52752f60cc89a6be5e51934fe01938ddb55d8f77801", // RFC 7517 A.2
	}
	publishedP384 = []string{
		"6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5", // RFC 6979 A.2.6
	}
	publishedSeeds = []string{ // RFC 8032 7.1
		"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
		"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
		"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
	}
)

func knownPoints(curve ecdh.Curve, size int, published []string) weakPoints {
	out := weakPoints{}
	add := func(scalar []byte, why string) {
		k, err := curve.NewPrivateKey(scalar)
		if err != nil {
			panic(fmt.Sprintf("identity: scalar %x: %v", scalar, err)) // a table of ours is wrong
		}
		point := k.PublicKey().Bytes()
		out[string(point[1:1+size])] = why
	}
	for d := int64(1); d <= fewScalars; d++ {
		add(big.NewInt(d).FillBytes(make([]byte, size)), "its private key is one of the first numbers")
	}
	for _, p := range published {
		add(mustHex(p), "its private key stands in a standard")
	}
	return out
}

var publishedEd25519 = sync.OnceValue(func() map[string]bool {
	out := map[string]bool{}
	for _, seed := range publishedSeeds {
		out[string(ed25519.NewKeyFromSeed(mustHex(seed)).Public().(ed25519.PublicKey))] = true
	}
	return out
})

func mustHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func weakModulus(k *rsa.PublicKey) string {
	switch {
	case k.N.BitLen() < MinRSA:
		return fmt.Sprintf("an RSA modulus has at least %d bits", MinRSA)
	case k.E < 65537 || k.E%2 == 0:
		return "its RSA exponent is too small or even"
	case k.N.Bit(0) == 0:
		return "its RSA modulus is even"
	case infineon(k.N):
		return "its RSA modulus comes from a faulty generator (ROCA, CVE-2017-15361)"
	}
	for _, p := range smallPrimes {
		if new(big.Int).Mod(k.N, big.NewInt(p)).Sign() == 0 {
			return fmt.Sprintf("its RSA modulus is divisible by %d", p)
		}
	}
	return ""
}

// smallPrimes are those that divide Infineon's generator modulus for keys of every size.
var smallPrimes = []int64{3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167}

// infineon says whether n looks like the product of two primes of the faulty library: these are powers of 65537 modulo
// a product of small primes, so n is one modulo each of them (Nemec et al., CCS 2017, 4.1). An honest modulus passes all
// tests by chance with a probability below 2^-27.
func infineon(n *big.Int) bool {
	for _, p := range smallPrimes {
		if !powersOf65537()[p][new(big.Int).Mod(n, big.NewInt(p)).Int64()] {
			return false
		}
	}
	return true
}

var powersOf65537 = sync.OnceValue(func() map[int64]map[int64]bool {
	out := map[int64]map[int64]bool{}
	for _, p := range smallPrimes {
		out[p] = map[int64]bool{}
		for x := int64(1); !out[p][x]; x = x * 65537 % p {
			out[p][x] = true
		}
	}
	return out
})
