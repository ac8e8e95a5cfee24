# The public names, each once: `name as name` is how a stub hands a name on.

from . import (
    attacks as attacks,
    diagnostics as diagnostics,
    dissection as dissection,
    evaluation as evaluation,
    facts as facts,
    models as models,
    reporting as reporting,
    runs as runs,
    sites as sites,
    unlearning as unlearning,
)
from .attacks import (
    ATTACKS as ATTACKS,
    SUITES as SUITES,
    AblateDirection as AblateDirection,
    Attack as Attack,
    Attacks as Attacks,
    Interpolate as Interpolate,
    Noise as Noise,
    Prompts as Prompts,
    Quantise as Quantise,
    Relearn as Relearn,
    Steer as Steer,
    attack as attack,
    relearn as relearn,
)
from .diagnostics import (
    change_spectra as change_spectra,
    neuron_changes as neuron_changes,
    plot_changes as plot_changes,
    promoted as promoted,
    weight_changes as weight_changes,
)
from .dissection import (
    METRICS as METRICS,
    Dissection as Dissection,
    Metric as Metric,
    all_layers as all_layers,
    dissect as dissect,
    from_ as from_,
    given as given,
    single as single,
    sliding as sliding,
    up_to as up_to,
)
from .errors import (
    UserError as UserError,
)
from .evaluation import (
    MEASURES as MEASURES,
    Evaluation as Evaluation,
    Measure as Measure,
    evaluate as evaluate,
)
from .facts import (
    Fact as Fact,
    Facts as Facts,
    Template as Template,
    organism_text as organism_text,
    tokenize as tokenize,
)
from .models import (
    clone as clone,
    compare as compare,
    load as load,
    save as save,
)
from .reporting import (
    report as report,
)
from .unlearning import (
    CIR as CIR,
    DPO as DPO,
    IDK as IDK,
    METHODS as METHODS,
    NPO as NPO,
    RMU as RMU,
    UNDIAL as UNDIAL,
    WGA as WGA,
    Breaking as Breaking,
    Budget as Budget,
    CircuitBreakers as CircuitBreakers,
    GradientAscent as GradientAscent,
    GradientDifference as GradientDifference,
    Layered as Layered,
    Method as Method,
    RefusalDPO as RefusalDPO,
    SimNPO as SimNPO,
    Unlearning as Unlearning,
    unlearn as unlearn,
)

__version__: str
