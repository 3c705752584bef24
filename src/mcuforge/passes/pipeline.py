"""The optimization pipeline: what happens to a model between import and code generation."""

import tvm
import tvm_ffi
from tvm import relax, te, tirx

from mcuforge.errors import ModelError, located
from mcuforge.passes.dead_channels import RemoveDeadChannels
from mcuforge.passes.fold_zero_points import FoldZeroPoints
from mcuforge.passes.fuse_pad import FusePad
from mcuforge.passes.moves import MovePieces
from mcuforge.passes.restore_integers import RestoreIntegers
from mcuforge.passes.select_kernels import select_kernels
from mcuforge.passes.views import ViewReshapes
from mcuforge.target import Target

MAX_OPT_LEVEL = 4

# Raised inside a pass, it comes back through TVM's C++ as itself.
tvm_ffi.register_error("ModelError", ModelError)


@located("")
def optimize(mod: tvm.IRModule, target: Target, opt_level: int) -> tvm.IRModule:
    """Lower an imported model to a sequence of TIR kernel calls.

    Every pass carries the opt_level from which it runs, and ``PassContext`` decides, as in TVM.

    Args:
        mod: Relax as ``formats.tflite.importer.from_tflite`` returns it.
        target: decides which kernels are available.
        opt_level: 0 (the imported float arithmetic) to 4.

    Returns:
        A module whose ``main`` consists of ``call_tir`` and views.

    Raises:
        ModelError: an operator cannot be compiled; names it where that is known.
    """
    passes = [
        RestoreIntegers(),
        FusePad(),
        RemoveDeadChannels(),
        FoldZeroPoints(),
        ViewReshapes(),
        MovePieces(),
    ]
    passes += [
        relax.transform.LegalizeOps({"relax.sigmoid": _legalize_sigmoid}),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
    ]
    # Behind FoldConstant, which would run kernels whose operands are all constant on TVM's terms.
    passes += [select_kernels(level, target.features) for level in range(MAX_OPT_LEVEL, -1, -1)]
    passes += [relax.transform.FuseOps(), relax.transform.FuseTIR()]
    with tvm.transform.PassContext(opt_level=opt_level):
        return tvm.transform.Sequential(passes)(mod)


def _legalize_sigmoid(builder: relax.BlockBuilder, call: relax.Call) -> relax.Call:
    """TIR's sigmoid is an intrinsic that neither C nor an embedded libm has."""

    def sigmoid(x: te.Tensor) -> te.Tensor:
        one = tirx.const(1, x.dtype)
        return te.compute(x.shape, lambda *i: one / (one + tirx.exp(-x(*i))), name="sigmoid")

    return builder.call_te(sigmoid, call.args[0])
