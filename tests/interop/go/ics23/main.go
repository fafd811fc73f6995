// Checks state proofs with the ICS-23 library of the Cosmos developers: the specification of the tree is written down
// from docs/formats/state.md, nothing of Instar is used. Exits with 0 only if every proof holds and every forgery of it
// is refused.
package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	ics23 "github.com/cosmos/ics23/go"
)

var spec = &ics23.ProofSpec{
	LeafSpec: &ics23.LeafOp{
		Hash:         ics23.HashOp_SHA256,
		PrehashKey:   ics23.HashOp_SHA256,
		PrehashValue: ics23.HashOp_SHA256,
		Length:       ics23.LengthOp_NO_PREFIX,
		Prefix:       []byte("JMT::LeafNode"),
	},
	InnerSpec: &ics23.InnerSpec{
		ChildOrder:      []int32{0, 1},
		ChildSize:       32,
		MinPrefixLength: 16,
		MaxPrefixLength: 16,
		EmptyChild:      []byte("SPARSE_MERKLE_PLACEHOLDER_HASH__"),
		Hash:            ics23.HashOp_SHA256,
	},
	MaxDepth:                   256,
	PrehashKeyBeforeComparison: true,
}

type vectors struct {
	Cases []struct {
		Key   string  `json:"key"`
		Proof string  `json:"proof"`
		Value *string `json:"value"`
	} `json:"cases"`
	Root string `json:"root"`
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func must[T any](value T, err error) T {
	if err != nil {
		fail("%v", err)
	}
	return value
}

func main() {
	var file vectors
	if err := json.Unmarshal(must(os.ReadFile(os.Args[1])), &file); err != nil {
		fail("%v", err)
	}
	root := must(hex.DecodeString(file.Root))
	other := sha256.Sum256(root)
	there, absent := 0, 0
	for _, c := range file.Cases {
		var proof ics23.CommitmentProof
		if err := proof.Unmarshal(must(base64.StdEncoding.DecodeString(c.Proof))); err != nil {
			fail("%s: %v", c.Key, err)
		}
		key := []byte(c.Key)
		var value []byte
		holds := func(root, key, value []byte) bool {
			if c.Value == nil {
				return ics23.VerifyNonMembership(spec, root, &proof, key)
			}
			return ics23.VerifyMembership(spec, root, &proof, key, value)
		}
		if c.Value != nil {
			value = must(base64.StdEncoding.DecodeString(*c.Value))
			there++
		} else {
			absent++
		}
		if !holds(root, key, value) {
			fail("%s: the proof does not hold", c.Key)
		}
		if holds(other[:], key, value) {
			fail("%s: it holds for another root", c.Key)
		}
		if holds(root, []byte(file.Cases[0].Key+"x"), value) && c.Value != nil {
			fail("%s: it holds for another key", c.Key)
		}
		if c.Value != nil && holds(root, key, append([]byte("1"), value...)) {
			fail("%s: it holds for another value", c.Key)
		}
		// An absence is none of a key that is there.
		if c.Value == nil && holds(root, []byte(file.Cases[0].Key), nil) {
			fail("%s: it shows the absence of %s too", c.Key, file.Cases[0].Key)
		}
		if c.Value != nil && ics23.VerifyNonMembership(spec, root, &proof, key) {
			fail("%s: it shows presence and absence", c.Key)
		}
	}
	if there == 0 || absent == 0 {
		fail("the vectors lack one of the two kinds")
	}
	fmt.Printf("%d keys that are there, %d that are not\n", there, absent)
}
